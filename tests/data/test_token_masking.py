import random

import pytest
import torch
from torch.utils.data import DataLoader

from hf_maskattn.data.token_masking import RowMaskingCollator
from hf_maskattn.data.tokenizer_training import train_tokenizer

TEXTS = ["a b c d e f g h", "b c", "h g f e d", "c a b d e f g h a b c"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, kind="word", vocab_size=40, max_length=32)


@pytest.fixture
def rows(tokenizer):
    return [dict(tokenizer(text)) for text in TEXTS]


def collator(tokenizer, seed=0, epoch=0, mlm_probability=0.5):
    masking = RowMaskingCollator(tokenizer, mlm_probability=mlm_probability, seed=seed)
    masking.set_epoch(epoch)
    return masking


def test_a_row_has_its_masks_alone_and_in_any_batch(tokenizer, rows):
    together = collator(tokenizer)(rows)
    backwards = collator(tokenizer)(rows[::-1])
    for number, row in enumerate(rows):
        length, alone = len(row["input_ids"]), collator(tokenizer)([row])
        for name in ("input_ids", "labels"):
            assert torch.equal(together[name][number, :length], alone[name][0]), name
            assert torch.equal(backwards[name][-1 - number, :length], alone[name][0]), name


def test_padding_on_the_left_moves_masks_and_nothing_else(tokenizer, rows):
    right = collator(tokenizer)(rows)
    tokenizer.padding_side = "left"
    left = collator(tokenizer)(rows)
    tokenizer.padding_side = "right"
    for number, row in enumerate(rows):
        assert torch.equal(left["labels"][number, -len(row["input_ids"]) :], right["labels"][number, : len(row["input_ids"])])


def test_masks_are_drawn_from_seed_and_epoch_and_from_nothing_else(tokenizer, rows):
    labels = collator(tokenizer)(rows)["labels"]
    torch.rand(3)
    before = torch.random.get_rng_state()
    assert torch.equal(collator(tokenizer)(rows)["labels"], labels)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(collator(tokenizer, epoch=1)(rows)["labels"], labels)
    assert not torch.equal(collator(tokenizer, seed=1)(rows)["labels"], labels)


def test_fixed_masks_are_those_of_no_epoch(tokenizer, rows):
    training = collator(tokenizer)
    fixed = training.with_fixed_masks()
    before = fixed(rows)["labels"]
    training.set_epoch(5)
    assert torch.equal(fixed(rows)["labels"], before)
    assert not torch.equal(training(rows)["labels"], before)


def test_tokens_are_masked_as_often_as_asked_for_and_special_ones_and_pads_never(tokenizer):
    rng = random.Random(0)
    rows = [dict(tokenizer(" ".join(rng.choices("abcdefgh", k=30)))) for _ in range(200)]
    batch = collator(tokenizer, mlm_probability=0.2)(rows)
    original = tokenizer.pad(rows, return_tensors="pt")["input_ids"]
    special = torch.isin(original, torch.tensor(tokenizer.all_special_ids))
    masked = batch["labels"] != -100
    assert not (masked & special).any()
    assert torch.equal(batch["labels"][masked], original[masked])
    assert torch.equal(batch["input_ids"][~masked], original[~masked])
    assert masked.sum() / (~special).sum() == pytest.approx(0.2, abs=0.02)
    share = (batch["input_ids"][masked] == tokenizer.mask_token_id).float().mean()
    assert share == pytest.approx(0.8, abs=0.05)


def test_special_tokens_may_be_told_by_the_data(tokenizer):
    row = dict(tokenizer(TEXTS[0]))
    row["special_tokens_mask"] = [1] * (len(row["input_ids"]) - 3) + [0, 0, 1]
    labels = collator(tokenizer, mlm_probability=1.0)([row])["labels"][0]
    assert (labels != -100).nonzero().flatten().tolist() == [len(labels) - 3, len(labels) - 2]


def test_workers_that_persist_see_the_epoch(tokenizer, rows):
    masking = collator(tokenizer)
    loader = DataLoader(rows, batch_size=2, collate_fn=masking, num_workers=1, persistent_workers=True)
    for epoch in range(2):
        masking.set_epoch(epoch)
        found = [batch["labels"] for batch in loader]
        expected = [collator(tokenizer, epoch=epoch)(rows[start : start + 2])["labels"] for start in (0, 2)]
        assert all(torch.equal(left, right) for left, right in zip(found, expected, strict=True))
