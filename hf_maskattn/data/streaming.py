"""Rows of shards -> an endless stream of shuffled model inputs, that can go on anywhere as if it had been read up to there."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from hf_maskattn.data.places import Place
from hf_maskattn.data.shards import ROW, SHARD, ShardReader, Shards, Share


class WorkerError(ValueError):
    """What went wrong in a worker of a `DataLoader`, without the traceback that torch puts before it.

    Args:
        text: The message; what stands before the name of this class is left out.
    """

    def __init__(self, text: str):
        super().__init__(text.rpartition(f"{type(self).__name__}: ")[2])


@dataclass(eq=False)
class RowStream(IterableDataset):
    """Model inputs without end: after the last row the first ones come again, in another order.

    Shards are dealt to processes, and those of a process to the workers of its `DataLoader`. Where there are fewer shards
    than processes, or than workers, each of these reads all of them and keeps its part of the rows.

    Args:
        shards: The rows.
        encode: From a batch of columns and the places of its rows to columns of model inputs.
        shuffle_buffer: Rows that are permuted together, in windows that follow each other; each pass also takes the shards
            in another order. 0 leaves everything in its order.
        seed: Seed of the order.
        process: Number of this process.
        processes: How many there are.
        batch_size: Rows in a batch of the `DataLoader`.
        batches: Batches, counted from the beginning of the stream, that this process is done with; it goes on after them.

    Attributes:
        current_pass: Number of the pass that the latest row belongs to, in the process that reads it.
    """

    shards: Shards
    encode: Callable[[dict[str, list[Any]], list[Place]], dict[str, Any]]
    shuffle_buffer: int = 0
    seed: int = 0
    process: int = 0
    processes: int = 1
    batch_size: int = 1
    batches: int = 0
    current_pass: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield rows; in a worker of a `DataLoader`, those of its batches.

        Raises:
            ValueError: A row cannot be read or encoded, or there is none for this process or worker.
            TypeError: A text is no string. In a worker all of these are `WorkerError`.
            OSError: A shard cannot be reached. Likewise.
        """
        info = get_worker_info()
        if info is None:
            yield from self._rows(workers=1, worker=0)
            return
        # Workers run in parallel themselves; tokenizers would warn about the threads that they lost when forked.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            yield from self._rows(info.num_workers, info.id)
        except (ValueError, TypeError, OSError) as error:
            raise WorkerError(str(error)) from error

    def _rows(self, workers: int, worker: int) -> Iterator[dict[str, Any]]:
        # Workers give their batches in turns, and worker 0 gives the next one, whichever of them would have had its turn.
        turn = (worker + self.batches) % workers
        gone = (self.batches - turn + workers - 1) // workers * self.batch_size
        share = Share(list(range(len(self.shards)))).deal(self.processes, self.process).deal(workers, turn)
        reader = ShardReader(self.shards, share, window=self.shuffle_buffer, seed=(self.seed, self.process, turn))
        for table in reader.rows_after(gone):
            self.current_pass = reader.current_pass
            batch = table.to_pydict()
            numbers = zip(batch.pop(ROW), batch.pop(SHARD), strict=True)
            columns = self.encode(batch, [self.shards.place(shard, row) for row, shard in numbers])
            for values in zip(*columns.values(), strict=True):
                yield dict(zip(columns, values, strict=True))
