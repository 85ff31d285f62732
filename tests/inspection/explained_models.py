"""Small models with tokenizers to explain, whose weights are large enough for scores that differ."""

from functools import cache

import torch

import hf_maskattn
from hf_maskattn.data.tokenizers import train_tokenizer

WORDS = "the old cat sat on a warm red mat while two small dogs slept near it"
TEXTS = ["the old cat sat on a mat", "two dogs", "a warm red mat while it slept near the small dogs", "cat"]


@cache
def build_tokenizer(kind, generates):
    return train_tokenizer([WORDS], kind=kind, vocab_size=60, max_length=64, for_generation=generates)


def build_model(head="MaskAttnForSequenceClassification", **changes):
    """Build a model and its tokenizer of words, or of characters with `kind="char"`."""
    generates = head.startswith("RNNSearch")
    tokenizer = build_tokenizer(changes.pop("kind", "word"), generates)
    sizes = {"vocab_size": len(tokenizer), "embedding_size": 6, "hidden_size": 8, "attention_size": 8, "initializer_range": 1.0}
    model_class = getattr(hf_maskattn, head)
    ids = {"pad_token_id": tokenizer.pad_token_id}
    if generates:
        ids |= {
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "decoder_start_token_id": tokenizer.bos_token_id,
        }
    model = model_class(model_class.config_class(**{**sizes, **ids, **changes}))
    if generates:
        model.generation_config.max_new_tokens = 6
    return model.eval(), tokenizer


def tag_names(*names):
    """Return the configuration of tags."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


@torch.no_grad()
def run(model, tokenizer, text):
    """Return the logits of one text."""
    return model.eval()(**tokenizer([text], return_tensors="pt")).logits[0]
