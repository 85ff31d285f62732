import copy

import numpy as np
import pytest
import torch
from transformers import DataCollatorWithPadding

from hf_maskattn.data.collators import UnknownWordCollator, count_tokens, count_unknown_words
from hf_maskattn.data.tokenizers import train_tokenizer

TEXTS = ["a b c d e f g h", "b c", "h g f e d", "c a b d e f g h a b c"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, kind="word", vocab_size=40, max_length=32)


@pytest.fixture
def build(tokenizer):
    """Builds a collator in an epoch."""

    def make(counts=None, alpha=2.0, seed=0, epoch=0):
        counts = np.ones(len(tokenizer), int) if counts is None else counts
        padding = DataCollatorWithPadding(tokenizer)
        collator = UnknownWordCollator(padding, tokenizer, counts=counts, alpha=alpha, seed=seed)
        collator.set_epoch(epoch)
        return collator

    return make


@pytest.fixture
def rows(tokenizer):
    return [dict(tokenizer(text)) for text in TEXTS]


def test_token_is_replaced_with_its_probability(tokenizer, build):
    frequent, rare, unseen = tokenizer.convert_tokens_to_ids(["a", "b", "c"])
    counts = np.ones(len(tokenizer), int)
    counts[[frequent, rare, unseen]] = 18, 2, 0
    rows = [
        {"input_ids": [frequent, rare, unseen, tokenizer.mask_token_id, row + 3], "attention_mask": [1] * 5} for row in range(8)
    ]
    drawn = []
    for epoch in range(150):
        drawn.append(build(counts, epoch=epoch)([dict(row) for row in rows])["input_ids"][:, :4] == tokenizer.unk_token_id)
    fractions = torch.cat(drawn).float().mean(0)
    torch.testing.assert_close(fractions, torch.tensor([2 / 20, 2 / 4, 2 / 3, 0.0]), atol=0.05, rtol=0)


def test_unknown_words_are_independent_of_batch_and_padding(tokenizer, build, rows):
    together = build()(rows)["input_ids"]
    tokenizer.padding_side = "left"
    backwards = build()(rows[::-1])
    tokenizer.padding_side = "right"
    for number, row in enumerate(rows):
        alone = build()([row])["input_ids"][0]
        assert torch.equal(together[number, : len(alone)], alone)
        assert torch.equal(backwards["input_ids"][-1 - number, -len(alone) :], alone)
    padding = backwards["attention_mask"] == 0
    assert (backwards["input_ids"][padding] == tokenizer.pad_token_id).all()


def test_unknown_words_depend_on_seed_and_epoch_only(build, rows):
    ids = build()(rows)["input_ids"]
    before = torch.random.get_rng_state()
    assert torch.equal(build()(rows)["input_ids"], ids)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(build(epoch=1)(rows)["input_ids"], ids)
    assert not torch.equal(build(seed=1)(rows)["input_ids"], ids)


def test_evaluation_keeps_every_word(tokenizer, build, rows):
    ids = build().for_evaluation()(rows)["input_ids"]
    assert (ids == tokenizer.unk_token_id).sum() == 0


def test_count_tokens():
    assert count_tokens([[[1, 2], []], [[2]], [[]]], 4).tolist() == [0, 1, 2, 0]


def test_count_unknown_words(tokenizer):
    counts = np.zeros(len(tokenizer), int)
    counts[[tokenizer.unk_token_id, 5]] = 3, 7
    assert count_unknown_words(counts, tokenizer) == (3, 10)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.unk_token = None
    assert count_unknown_words(counts, tokenizer) == (0, 10)
