"""A small encoder-decoder that generates a text for each source, and its tokenizer."""

from hf_maskattn import RNNSearchConfig
from hf_maskattn.data.tokenizers import train_tokenizer
from tests.properties.generation_cases import decided_model

PAIR_TEXTS = ["meow purr", "woof", "bark tail"]


def toy_writer(**changes):
    """Build a model with random weights and clear choices, and a character tokenizer."""
    tokenizer = train_tokenizer([*PAIR_TEXTS, "abcdef"], kind="char", vocab_size=40, max_length=12, for_generation=True)
    config = RNNSearchConfig(
        vocab_size=len(tokenizer),
        embedding_size=6,
        hidden_size=8,
        attention_size=8,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.bos_token_id,
        **changes,
    )
    model = decided_model(config)
    model.generation_config.max_length = 9
    model.generation_config.suppress_tokens = [0, 1, 2]  # special tokens except the end
    return model, tokenizer
