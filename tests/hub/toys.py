"""Blocks of code for clean processes: toy models, and what they say."""

TOY = """
import huggingface_hub, torch, hf_maskattn
from hf_maskattn.data.tokenizers import train_tokenizer

tokenizer = train_tokenizer(["cats meow and purr", "dogs bark and growl"], kind="word", vocab_size=40, max_length=32)

def build(head="MaskAttnForSequenceClassification", seed=0):
    torch.manual_seed(seed)
    sizes = dict(vocab_size=len(tokenizer), embedding_size=6, hidden_size=8, attention_size=8)
    return getattr(hf_maskattn, head)(hf_maskattn.MaskAttnConfig(**sizes, pad_token_id=tokenizer.pad_token_id)).eval()
"""
"""A tokenizer and models, where the package can be imported."""

OUTPUTS = """
def outputs(model):
    import torch
    with torch.no_grad():
        found = model.eval()(torch.tensor([[5, 6, 7], [6, 5, 1]]), torch.tensor([[1, 1, 1], [1, 1, 0]]))
    return found[0].flatten().tolist()
"""
"""What a model makes of a fixed batch."""
