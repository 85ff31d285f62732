from itertools import islice

import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from hf_maskattn.data.encoding import encode_for_masked_lm
from hf_maskattn.data.shards import Shards
from hf_maskattn.data.stream_masking import StreamMaskingCollator
from hf_maskattn.data.token_masking import RowMaskingCollator
from hf_maskattn.data.tokenizer_training import train_tokenizer

ROWS = 4


@pytest.fixture
def load():
    texts = [" ".join("abcdefgh"[row:] + "abcdefgh"[:row]) for row in range(ROWS)]
    tokenizer = train_tokenizer(texts, kind="word", vocab_size=20, max_length=8)
    rows = Dataset.from_dict({"text": texts}).to_iterable_dataset()

    def read(batches, gone=0, workers=0):
        """Masked batches of a stream in order, each one pass."""
        stream = encode_for_masked_lm(Shards(rows), tokenizer, text_column="text", max_length=8)
        stream.batch_size, stream.batches = ROWS, gone
        collate = StreamMaskingCollator(RowMaskingCollator(tokenizer, mlm_probability=0.5, seed=0), stream)
        return [batch["labels"] for batch in islice(DataLoader(stream, ROWS, num_workers=workers, collate_fn=collate), batches)]

    return read


def test_each_pass_masks_other_tokens(load):
    first, second, third = load(3)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_masks_of_batches_that_were_left_are_the_same(load, workers):
    everything, rest = load(6, workers=workers), load(3, gone=3, workers=workers)
    assert all(torch.equal(left, right) for left, right in zip(everything[3:], rest, strict=True))
