"""The rows that each of several processes gets: its share of what one process would take, and no row twice.

accelerate fills up the last batches of an epoch with rows from its beginning, which then train twice, and count in the loss of
an evaluation in place of others.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from accelerate.data_loader import BatchSamplerShard, DataLoaderShard
from torch.utils.data import BatchSampler, DataLoader, Sampler


class ProcessShare(BatchSampler):
    """The rows of one process out of each batch of all processes, in the order of the sampler.

    Every process has the same number of batches. In the last one rows may be few; some processes may have none.

    Args:
        sampler: Rows in the order of the whole run, the same in all processes.
        batch_size: Rows of one process in a batch.
        drop_last: Whether to leave out a last batch that is not full.
        num_processes: Number of processes.
        process_index: Which of them this is.
        evenly: Whether rows of a last batch that is not full are spread over all processes, so that none waits for others.
            Otherwise each takes `batch_size` rows as long as there are any.
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
        self.num_processes = num_processes  # accelerate finds by it how many rows the last batch of an evaluation has
        self.process_index = process_index
        self.evenly = evenly

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self._batches_of_all():
            size = -(-len(rows) // self.num_processes) if self.evenly else self.batch_size
            yield rows[self.process_index * size : (self.process_index + 1) * size]

    def __len__(self) -> int:
        return len(self._batches_of_all())

    def _batches_of_all(self) -> BatchSampler:
        return BatchSampler(self.sampler, self.batch_size * self.num_processes, self.drop_last)


class CollateWithoutRows:
    """Makes a batch of rows as another collator does, and one of no rows: its tensors, empty along the first axis.

    Args:
        collate: The other collator.
        row: Any row; shows which tensors there are.
    """

    def __init__(self, collate: Callable[[list], Any], row: Any):
        self.collate = collate
        self.row = row

    def __call__(self, rows: list) -> Any:
        """Collate a list of rows."""
        return self.collate(rows) if rows else {name: values[:0] for name, values in self.collate([self.row]).items()}


def with_no_row_twice(loader: DataLoader, *, evenly: bool) -> DataLoader:
    """Have a dataloader that accelerate prepared for several processes give each row once.

    Args:
        loader: The dataloader; one of a single process, of a stream, or that shares its batches in another way stays as it is.
        evenly: See `ProcessShare`.

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
        batch_sampler=ProcessShare(
            batches.sampler,
            batches.batch_size,
            batches.drop_last,
            num_processes=shard.num_processes,
            process_index=shard.process_index,
            evenly=evenly,
        ),
        collate_fn=CollateWithoutRows(loader.collate_fn, loader.dataset[0]),
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
