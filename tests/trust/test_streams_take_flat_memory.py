"""Law: reading a stream takes as much memory after many rows as after a few."""

from itertools import islice

from tests.long_stream import BATCH, Memory, tiny_trainer, write_shards


def test_memory_does_not_grow_with_the_rows(tmp_path):
    rows = 40_000
    write_shards(tmp_path, rows, words=30)
    memory = Memory()
    for number, _ in enumerate(islice(tiny_trainer(tmp_path, rows).get_train_dataloader(), rows // BATCH)):
        memory.note((number + 1) / (rows // BATCH))
    first, middle, last = memory.resident.values()
    # An allocator may take a piece at any one time; what keeps rows grows all the time.
    assert min(middle - first, last - middle) < 8, memory.resident
