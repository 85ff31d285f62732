"""Reading a stream takes as much memory after many rows as after a few."""

from itertools import islice

import pytest

from tests.long_stream import BATCH, Memory, tiny_trainer, write_shards


@pytest.mark.slow
def test_stream_memory_does_not_grow(tmp_path):
    rows = 40_000
    write_shards(tmp_path, rows, words=30)
    memory = Memory()
    for number, _ in enumerate(islice(tiny_trainer(tmp_path, rows).get_train_dataloader(), rows // BATCH)):
        memory.record((number + 1) / (rows // BATCH))
    first, middle, last = memory.resident.values()
    # An allocator may grow once. What keeps rows grows all the time.
    assert min(middle - first, last - middle) < 8, memory.resident
