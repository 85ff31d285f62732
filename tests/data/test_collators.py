import copy
import pickle
import random
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import DataCollatorForSeq2Seq, DataCollatorWithPadding
from transformers.trainer_pt_utils import LabelSmoother

from hf_maskattn import RNNSearchForConditionalGeneration
from hf_maskattn.data.collators import (
    PairCollator,
    RowMaskingCollator,
    StreamCollator,
    UnknownWordCollator,
    count_tokens,
    count_unknown_words,
)
from hf_maskattn.data.encoding import encode_for_masked_lm
from hf_maskattn.data.streaming import Shards
from hf_maskattn.data.tokenizers import train_tokenizer

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


def test_row_masks_are_independent_of_the_batch(tokenizer, rows):
    together = collator(tokenizer)(rows)
    backwards = collator(tokenizer)(rows[::-1])
    for number, row in enumerate(rows):
        length, alone = len(row["input_ids"]), collator(tokenizer)([row])
        for name in ("input_ids", "labels"):
            assert torch.equal(together[name][number, :length], alone[name][0]), name
            assert torch.equal(backwards[name][-1 - number, :length], alone[name][0]), name


def test_row_masks_are_independent_of_padding_side(tokenizer, rows):
    right = collator(tokenizer)(rows)
    tokenizer.padding_side = "left"
    left = collator(tokenizer)(rows)
    tokenizer.padding_side = "right"
    for number, row in enumerate(rows):
        assert torch.equal(left["labels"][number, -len(row["input_ids"]) :], right["labels"][number, : len(row["input_ids"])])


def test_row_masks_depend_on_seed_and_epoch_only(tokenizer, rows):
    labels = collator(tokenizer)(rows)["labels"]
    torch.rand(3)
    before = torch.random.get_rng_state()
    assert torch.equal(collator(tokenizer)(rows)["labels"], labels)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(collator(tokenizer, epoch=1)(rows)["labels"], labels)
    assert not torch.equal(collator(tokenizer, seed=1)(rows)["labels"], labels)


def test_fixed_masks_are_independent_of_the_epoch(tokenizer, rows):
    training = collator(tokenizer)
    fixed = training.for_evaluation()
    before = fixed(rows)["labels"]
    training.set_epoch(5)
    assert torch.equal(fixed(rows)["labels"], before)
    assert not torch.equal(training(rows)["labels"], before)


def test_row_masks_have_the_probability(tokenizer):
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
    fraction = (batch["input_ids"][masked] == tokenizer.mask_token_id).float().mean()
    assert fraction == pytest.approx(0.8, abs=0.05)


def test_row_masks_respect_special_tokens_mask(tokenizer):
    row = dict(tokenizer(TEXTS[0]))
    row["special_tokens_mask"] = [1] * (len(row["input_ids"]) - 3) + [0, 0, 1]
    labels = collator(tokenizer, mlm_probability=1.0)([row])["labels"][0]
    assert (labels != -100).nonzero().flatten().tolist() == [len(labels) - 3, len(labels) - 2]


def test_row_masks_epoch_reaches_persistent_workers(tokenizer, rows):
    masking = collator(tokenizer)
    loader = DataLoader(rows, batch_size=2, collate_fn=masking, num_workers=1, persistent_workers=True)
    for epoch in range(2):
        masking.set_epoch(epoch)
        actual = [batch["labels"] for batch in loader]
        expected = [collator(tokenizer, epoch=epoch)(rows[start : start + 2])["labels"] for start in (0, 2)]
        assert all(torch.equal(left, right) for left, right in zip(actual, expected, strict=True))


@pytest.fixture
def build_unknown(tokenizer):
    """Builds a collator of unknown words in an epoch."""

    def make(counts=None, alpha=2.0, seed=0, epoch=0):
        counts = np.ones(len(tokenizer), int) if counts is None else counts
        padding = DataCollatorWithPadding(tokenizer)
        collator = UnknownWordCollator(padding, tokenizer, counts=counts, alpha=alpha, seed=seed)
        collator.set_epoch(epoch)
        return collator

    return make


def test_token_is_replaced_with_its_probability(tokenizer, build_unknown):
    frequent, rare, unseen = tokenizer.convert_tokens_to_ids(["a", "b", "c"])
    counts = np.ones(len(tokenizer), int)
    counts[[frequent, rare, unseen]] = 18, 2, 0
    rows = [
        {"input_ids": [frequent, rare, unseen, tokenizer.mask_token_id, row + 3], "attention_mask": [1] * 5} for row in range(8)
    ]
    drawn = []
    for epoch in range(150):
        ids = build_unknown(counts, epoch=epoch)([dict(row) for row in rows])["input_ids"]
        drawn.append(ids[:, :4] == tokenizer.unk_token_id)
    fractions = torch.cat(drawn).float().mean(0)
    torch.testing.assert_close(fractions, torch.tensor([2 / 20, 2 / 4, 2 / 3, 0.0]), atol=0.05, rtol=0)


def test_unknown_words_are_independent_of_batch_and_padding(tokenizer, build_unknown, rows):
    together = build_unknown()(rows)["input_ids"]
    tokenizer.padding_side = "left"
    backwards = build_unknown()(rows[::-1])
    tokenizer.padding_side = "right"
    for number, row in enumerate(rows):
        alone = build_unknown()([row])["input_ids"][0]
        assert torch.equal(together[number, : len(alone)], alone)
        assert torch.equal(backwards["input_ids"][-1 - number, -len(alone) :], alone)
    padding = backwards["attention_mask"] == 0
    assert (backwards["input_ids"][padding] == tokenizer.pad_token_id).all()


def test_unknown_words_depend_on_seed_and_epoch_only(build_unknown, rows):
    ids = build_unknown()(rows)["input_ids"]
    before = torch.random.get_rng_state()
    assert torch.equal(build_unknown()(rows)["input_ids"], ids)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(build_unknown(epoch=1)(rows)["input_ids"], ids)
    assert not torch.equal(build_unknown(seed=1)(rows)["input_ids"], ids)


def test_evaluation_keeps_every_word(tokenizer, build_unknown, rows):
    ids = build_unknown().for_evaluation()(rows)["input_ids"]
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


@pytest.fixture(scope="module")
def generation_tokenizer():
    return train_tokenizer(["abcdef"], kind="char", vocab_size=20, max_length=99, for_generation=True)


@pytest.fixture
def collate(generation_tokenizer, tiny_rnnsearch_config, monkeypatch):
    """Returns a model, and a batch of rows with padding on one side."""
    torch.manual_seed(0)
    model = RNNSearchForConditionalGeneration(tiny_rnnsearch_config()).eval()
    rows = [
        {**generation_tokenizer(source), "labels": generation_tokenizer(target)["input_ids"]}
        for source, target in (("abc", "f"), ("a", "bcde"))
    ]

    def run(side, collator=PairCollator):
        monkeypatch.setattr(generation_tokenizer, "padding_side", side)
        return model, dict(collator(generation_tokenizer, model=model)([dict(row) for row in rows]))

    return run


@pytest.mark.parametrize(("side", "mask"), [("right", [[1, 1, 0, 0, 0], [1] * 5]), ("left", [[0, 0, 0, 1, 1], [1] * 5])])
def test_pair_collator_masks_target_padding(collate, side, mask):
    _, batch = collate(side)
    assert batch["decoder_attention_mask"].tolist() == mask
    assert torch.equal(batch["decoder_attention_mask"].bool(), batch["labels"] != -100)


def test_pair_collator_keeps_ignored_label_inside_target(generation_tokenizer, collate):
    model, _ = collate("left")
    rows = [{"input_ids": [4], "labels": [4, -100, 3]}, {"input_ids": [4], "labels": [3]}]
    batch = PairCollator(generation_tokenizer, model=model)(rows)
    assert batch["decoder_attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert torch.equal(model(**batch).loss, model(**DataCollatorForSeq2Seq(generation_tokenizer, model=model)(rows)).loss)


@pytest.mark.parametrize("side", ["right", "left"])
def test_pair_collator_does_not_change_the_loss(collate, side):
    model, batch = collate(side)
    assert torch.equal(model(**batch).loss, model(**collate(side, DataCollatorForSeq2Seq)[1]).loss)


def test_pair_collator_is_sent_to_workers_without_the_model(generation_tokenizer, collate):
    model, batch = collate("right")
    model.enable_input_require_grads()  # hooks cannot be pickled
    collator = pickle.loads(pickle.dumps(PairCollator(generation_tokenizer, model=model)))
    assert len(pickle.dumps(collator.model)) < 3000
    rows = [
        {"input_ids": ids[is_token.bool()].tolist(), "labels": labels[labels != -100].tolist()}
        for ids, is_token, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True)
    ]
    again = collator(rows)
    assert all(torch.equal(value, again[name]) for name, value in batch.items())
    assert "decoder_input_ids" not in PairCollator(generation_tokenizer)(rows)


def test_pair_collator_smoothed_loss_ignores_padding_side(collate):
    losses = []
    for side in ("right", "left"):
        model, batch = collate(side)
        labels = batch.pop("labels")
        losses.append(LabelSmoother(epsilon=0.1)(model(**batch), labels))
    torch.testing.assert_close(*losses)


ROWS = 4


@pytest.fixture
def load():
    texts = [" ".join("abcdefgh"[row:] + "abcdefgh"[:row]) for row in range(ROWS)]
    tokenizer = train_tokenizer(texts, kind="word", vocab_size=20, max_length=8)
    rows = Dataset.from_dict({"text": texts}).to_iterable_dataset()

    def read(num_batches, skipped=0, workers=0):
        """Read masked batches of a stream, each of which is one pass."""
        stream = encode_for_masked_lm(Shards(rows), tokenizer, text_column="text", max_length=8)
        stream = replace(stream, batch_size=ROWS, skipped_batches=skipped)
        collate = StreamCollator(RowMaskingCollator(tokenizer, mlm_probability=0.5, seed=0), stream)
        return [
            batch["labels"] for batch in islice(DataLoader(stream, ROWS, num_workers=workers, collate_fn=collate), num_batches)
        ]

    return read


def test_stream_masks_differ_between_passes(load):
    first, second, third = load(3)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_masks_after_skipped_batches(load, workers):
    all_batches, remaining = load(6, workers=workers), load(3, skipped=3, workers=workers)
    assert all(torch.equal(left, right) for left, right in zip(all_batches[3:], remaining, strict=True))
