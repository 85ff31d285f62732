import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from hf_maskattn.training.samplers import CollateWithoutRows, ProcessShare, with_no_row_twice


def shares(rows, batch_size, processes, evenly, drop_last=False):
    """The batches of each process."""
    samplers = [
        ProcessShare(range(rows), batch_size, drop_last, num_processes=processes, process_index=index, evenly=evenly)
        for index in range(processes)
    ]
    found = [list(sampler) for sampler in samplers]
    assert [len(batches) for batches in found] == [len(sampler) for sampler in samplers]
    return found


@pytest.mark.parametrize("evenly", [True, False])
@pytest.mark.parametrize("rows", range(1, 20))
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_together_they_take_the_rows_of_one_process_in_its_order(rows, processes, evenly):
    for batches, whole in zip(
        zip(*shares(rows, 4, processes, evenly), strict=True),
        BatchSampler(range(rows), 4 * processes, drop_last=False),
        strict=True,
    ):
        assert [row for batch in batches for row in batch] == whole
        assert max(map(len, batches)) <= 4


def test_a_last_batch_is_spread_or_filled():
    assert [batches[-1] for batches in shares(11, 4, 2, evenly=True)] == [[8, 9], [10]]
    assert [batches[-1] for batches in shares(11, 4, 2, evenly=False)] == [[8, 9, 10], []]


def test_a_last_batch_is_left_out_if_asked_for():
    assert shares(11, 4, 2, evenly=True, drop_last=True) == [[[0, 1, 2, 3]], [[4, 5, 6, 7]]]


def test_a_batch_without_rows_has_the_tensors_of_one_with_rows():
    collate = CollateWithoutRows(lambda rows: {"ids": torch.tensor(rows), "labels": torch.ones(len(rows))}, row=[1, 2])
    assert collate([[3, 4]])["ids"].tolist() == [[3, 4]]
    empty = collate([])
    assert empty["ids"].shape == (0, 2)
    assert empty["ids"].dtype == torch.int64
    assert empty["labels"].shape == (0,)


def prepared(batch_sampler, collate=None):
    return DataLoaderShard(list(range(11)), batch_sampler=batch_sampler, collate_fn=collate or (lambda rows: {"rows": rows}))


def test_a_dataloader_of_several_processes_gives_no_row_twice():
    batches = BatchSampler(SequentialSampler(range(11)), 4, drop_last=False)
    loaders = [
        with_no_row_twice(prepared(BatchSamplerShard(batches, num_processes=2, process_index=index)), evenly=False)
        for index in (0, 1)
    ]
    assert [batch["rows"] for batch in loaders[0]] == [[0, 1, 2, 3], [8, 9, 10]]
    assert [batch["rows"] for batch in loaders[1]] == [[4, 5, 6, 7], []]
    assert loaders[0].total_batch_size == 8  # by which accelerate knows how many rows the last batch has


def test_other_dataloaders_stay_as_they_are():
    batches = BatchSampler(SequentialSampler(range(12)), 4, drop_last=False)
    for loader in (
        DataLoader(list(range(12)), batch_sampler=batches),
        prepared(batches),
        prepared(BatchSamplerShard(batches, num_processes=2, process_index=0, split_batches=True)),
    ):
        assert with_no_row_twice(loader, evenly=True) is loader
