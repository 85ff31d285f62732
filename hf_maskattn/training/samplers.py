"""The rows of each batch: grouped by length in a seeded order, and distributed to processes without duplicates."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard
from torch.utils.data import BatchSampler, DataLoader, Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler


class SeededSampler(LengthGroupedSampler):
    """Groups rows of similar length, in an order that depends on the seed and not on earlier random numbers."""

    def __init__(self, *args, seed: int, **kwargs):
        super().__init__(*args, generator=torch.Generator(), **kwargs)
        self.seed = seed

    def __iter__(self):
        self.generator.manual_seed(self.seed)
        return super().__iter__()


class EpochSeededSampler(SeededSampler):
    """Groups rows of similar length, in an order that depends on seed and epoch.

    A run that is resumed within an epoch then trains on exactly the remaining rows.
    """

    def __init__(self, *args, seed: int, **kwargs):
        super().__init__(*args, seed=seed, **kwargs)
        self._first_seed = seed

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch. Trainer calls this method."""
        self.seed = self._first_seed + epoch


class ProcessBatchSampler(BatchSampler):
    """The batches of one of several processes: consecutive parts of the batches of one process with the total batch size.

    Every process has the same number of batches. The last batch of a process may have fewer rows, or none.

    Args:
        sampler: Row indices in the order of the run, the same in all processes.
        batch_size: Number of rows of one process in a batch.
        drop_last: Whether to drop a last batch that is not full.
        num_processes: Number of processes.
        process_index: Index of this process.
        evenly: Whether to spread the rows of a last batch that is not full over all processes. Otherwise each process gets
            `batch_size` rows until there are none left.
    """

    def __init__(
        self,
        sampler: Sampler[int] | Iterable[int],
        batch_size: int,
        drop_last: bool,
        *,
        num_processes: int,
        process_index: int,
        evenly: bool,
    ):
        super().__init__(sampler, batch_size, drop_last)
        self.num_processes = num_processes  # accelerate reads it to count the rows of the last batch of an evaluation
        self.process_index = process_index
        self.evenly = evenly

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self._total_batches():
            size = -(-len(rows) // self.num_processes) if self.evenly else self.batch_size
            yield rows[self.process_index * size : (self.process_index + 1) * size]

    def __len__(self) -> int:
        return len(self._total_batches())

    def _total_batches(self) -> BatchSampler:
        return BatchSampler(self.sampler, self.batch_size * self.num_processes, self.drop_last)


class EmptyBatchCollator:
    """Collates rows; a batch without rows has the same tensors, with length 0 in the first axis.

    They are built from `row`, which may be any one.
    """

    def __init__(self, collate: Callable[[list], Any], row: Any):
        self.collate = collate
        self.row = row

    def __call__(self, rows: list) -> Any:
        """Collate a list of rows."""
        return self.collate(rows) if rows else {name: values[:0] for name, values in self.collate([self.row]).items()}


def shard_without_duplicates(loader: DataLoader, *, evenly: bool) -> DataLoader:
    """Rebuild a dataloader that accelerate prepared for several processes so that each row is used once.

    accelerate fills up the last batches with rows from the start of the epoch: they would be trained on twice, and count in
    the loss of an evaluation.

    Args:
        loader: The dataloader. It is returned unchanged if it is for a single process, for a stream, or is sharded otherwise.
        evenly: See `ProcessBatchSampler`.

    Returns:
        The dataloader.
    """
    if not isinstance(loader, DataLoaderShard):
        return loader
    shard = loader.batch_sampler
    if not isinstance(shard, BatchSamplerShard) or shard.split_batches or type(shard.batch_sampler) is not BatchSampler:
        return loader
    batches = shard.batch_sampler
    return DataLoaderShard(
        loader.dataset,
        device=loader.device,
        rng_types=loader.rng_types,
        synchronized_generator=loader.synchronized_generator,
        batch_sampler=ProcessBatchSampler(
            batches.sampler,
            batches.batch_size,
            batches.drop_last,
            num_processes=shard.num_processes,
            process_index=shard.process_index,
            evenly=evenly,
        ),
        collate_fn=EmptyBatchCollator(loader.collate_fn, loader.dataset[0]),
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
        in_order=loader.in_order,
        _drop_last=batches.drop_last,
        _non_blocking=loader._non_blocking,
    )
