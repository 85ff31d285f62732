"""Shared inputs: texts of different lengths and their tokenizer, a saved model, rows to train on."""

import pytest

from hf_maskattn.data.tokenizers import train_tokenizer
from tests.heads import build_head

TEXTS = ["a", "the date is 3 May 1999 or so", "words", "some more words, longer than all of the others before"]


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(TEXTS, kind="char", vocab_size=40, max_length=64)


@pytest.fixture
def saved(tmp_path, tiny_config, tokenizer):
    """Saves a model with its tokenizer; returns the model and its folder."""

    def build(head="MaskAttnForSequenceClassification", **changes):
        model = build_head(head, tiny_config, **changes).eval()
        folder = tmp_path / "model"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return model, folder

    return build


@pytest.fixture
def rows(tokenizer):
    """Rows of a task that is learned in a few steps: whether a text is long."""
    texts = [text[:length] for text in TEXTS for length in range(1, len(text) + 1)]
    return [{**tokenizer(text), "labels": int(len(text) > 8)} for text in texts[::3]]
