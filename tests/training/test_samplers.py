import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from hf_maskattn.training.samplers import EmptyBatchCollator, EpochSeededSampler, ProcessBatchSampler, shard_without_duplicates


def batches_of(rows, batch_size, processes, evenly, drop_last=False):
    """Return the batches of each process."""
    samplers = [
        ProcessBatchSampler(range(rows), batch_size, drop_last, num_processes=processes, process_index=index, evenly=evenly)
        for index in range(processes)
    ]
    found = [list(sampler) for sampler in samplers]
    assert [len(batches) for batches in found] == [len(sampler) for sampler in samplers]
    return found


@pytest.mark.parametrize("evenly", [True, False])
@pytest.mark.parametrize("rows", range(1, 20))
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_the_batches_of_one_process(rows, processes, evenly):
    for batches, total in zip(
        zip(*batches_of(rows, 4, processes, evenly), strict=True),
        BatchSampler(range(rows), 4 * processes, drop_last=False),
        strict=True,
    ):
        assert [row for batch in batches for row in batch] == total
        assert max(map(len, batches)) <= 4


def test_last_batch_is_spread_or_filled():
    assert [batches[-1] for batches in batches_of(11, 4, 2, evenly=True)] == [[8, 9], [10]]
    assert [batches[-1] for batches in batches_of(11, 4, 2, evenly=False)] == [[8, 9, 10], []]


def test_last_batch_can_be_dropped():
    assert batches_of(11, 4, 2, evenly=True, drop_last=True) == [[[0, 1, 2, 3]], [[4, 5, 6, 7]]]


def test_empty_batch_has_the_same_tensors():
    collate = EmptyBatchCollator(lambda rows: {"ids": torch.tensor(rows), "labels": torch.ones(len(rows))}, row=[1, 2])
    assert collate([[3, 4]])["ids"].tolist() == [[3, 4]]
    empty = collate([])
    assert empty["ids"].shape == (0, 2)
    assert empty["ids"].dtype == torch.int64
    assert empty["labels"].shape == (0,)


def prepared(batch_sampler, collate=None):
    return DataLoaderShard(list(range(11)), batch_sampler=batch_sampler, collate_fn=collate or (lambda rows: {"rows": rows}))


def test_sharded_dataloader_has_no_duplicates():
    batches = BatchSampler(SequentialSampler(range(11)), 4, drop_last=False)
    loaders = [
        shard_without_duplicates(prepared(BatchSamplerShard(batches, num_processes=2, process_index=index)), evenly=False)
        for index in (0, 1)
    ]
    assert [batch["rows"] for batch in loaders[0]] == [[0, 1, 2, 3], [8, 9, 10]]
    assert [batch["rows"] for batch in loaders[1]] == [[4, 5, 6, 7], []]
    assert loaders[0].total_batch_size == 8  # accelerate computes the rows of the last batch from it


def test_other_dataloaders_are_unchanged():
    batches = BatchSampler(SequentialSampler(range(12)), 4, drop_last=False)
    for loader in (
        DataLoader(list(range(12)), batch_sampler=batches),
        prepared(batches),
        prepared(BatchSamplerShard(batches, num_processes=2, process_index=0, split_batches=True)),
    ):
        assert shard_without_duplicates(loader, evenly=True) is loader


def order(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def test_order_depends_on_seed_and_epoch_only():
    lengths = list(range(50))
    one, other = (EpochSeededSampler(4, lengths=lengths, seed=3) for _ in range(2))
    third = order(one, 2)
    torch.rand(7)
    assert order(other, 2) == third
    assert order(one, 1) != third
    assert order(EpochSeededSampler(4, lengths=lengths, seed=4), 2) != third
    assert sorted(third) == lengths


def test_batches_have_rows_of_similar_length():
    lengths = [row % 10 for row in range(100)]
    rows = order(EpochSeededSampler(5, lengths=lengths, seed=0), 0)
    batches = [[lengths[row] for row in rows[start : start + 5]] for start in range(5, 100, 5)]
    assert sum(max(batch) - min(batch) for batch in batches) / len(batches) < 3
