"""Streams a split that is larger than memory: shards of Arrow tables, and an endless, resumable stream of model inputs."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
from torch.utils.data import IterableDataset, get_worker_info

from hf_maskattn.data.encoding import BatchEncoder
from hf_maskattn.data.files import TableFile, unreadable_error
from hf_maskattn.data.schemas import check_schema
from hf_maskattn.data.table_reading import RowLocation, count_rows, read_tables

SHARD, ROW = "shard of this row", "index of this row"
"""Columns with the location of a row: the index of its shard, and its index in the shard."""

_MAX_ROWS_PER_TABLE = 10_000
_MAX_ROWS_PER_YIELD = 1000


class Shards:
    """A split that is read from its source, shard by shard, whenever it is iterated.

    Args:
        source: Dataset of `datasets.load_dataset(..., streaming=True)`, or files; each file is a shard.
        class_labels: Columns of files whose labels are named; they are converted to label ids.

    Attributes:
        features: Features of the columns; inferred from the first rows if the source does not declare them.
        info: Dataset information of the source.
        files: Files of the shards; empty if the source is a dataset.

    Raises:
        ValueError: There are no rows, or the first ones cannot be read.
        OSError: The source cannot be reached.
    """

    features: datasets.Features

    def __init__(
        self,
        source: datasets.IterableDataset | Sequence[TableFile],
        class_labels: Mapping[str, datasets.ClassLabel] | None = None,
    ):
        self._source = source if isinstance(source, datasets.IterableDataset) else None
        self.files = [] if isinstance(source, datasets.IterableDataset) else list(source)
        self._class_labels = dict(class_labels or {})
        if self._source is not None and self._source.features:
            self.info, self.features = self._source.info, self._source.features
            self._source_features = self.features
            return
        self.info = self._source.info if self._source is not None else datasets.DatasetInfo(builder_name=self.files[0].kind)
        tables = (table for shard in range(len(self)) for table in self._read(shard))
        self._source_features = datasets.Features.from_arrow_schema(self._require_rows(next(tables, None)).schema)
        self.features = datasets.Features(
            {name: self._class_labels.get(name, feature) for name, feature in self._source_features.items()}
        )

    def __len__(self) -> int:
        """Return the number of shards."""
        return len(self.files) if self._source is None else self._source.num_shards

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return list(self.features)

    def name(self, shard: int) -> str:
        """Return the name of a shard for error messages."""
        return str(self.files[shard]) if self.files else f"shard {shard} of {len(self)}"

    def location(self, shard: int, row: int) -> RowLocation:
        """Return the location of a row of a shard."""
        return RowLocation(row, self.files[shard : shard + 1], self.name(shard))

    def select(self, columns: Sequence[str]) -> "Shards":
        """Return the shards with some of their columns."""
        selected = copy(self)
        selected._source_features = datasets.Features({name: self._source_features[name] for name in columns})
        selected.features = datasets.Features({name: self.features[name] for name in columns})
        return selected

    def tables(self, shard: int) -> Iterator[pa.Table]:
        """Read the rows of a shard.

        Yields:
            Tables of up to 10,000 rows, in order, with the columns and types of `features`.

        Raises:
            ValueError: The shard cannot be read, or has other columns or types; the message contains its name and, if there
                is one, the line.
            OSError: The shard cannot be reached.
        """
        for table in self._read(shard, self._source_features.arrow_schema):
            if self._source is not None:
                yield self._cast(shard, table)
            elif self._class_labels:
                yield datasets.table.table_cast(table, self.features.arrow_schema)
            else:
                yield table

    def count(self, shard: int) -> int:
        """Count the rows of a shard: see `count_rows` for files; other shards are read."""
        return count_rows(self.files[shard]) if self.files else sum(len(table) for table in self._read(shard))

    def first_rows(self, rows: int | None = None) -> datasets.Dataset:
        """Read the first rows, or all for None, into memory, in the order of the shards.

        Raises:
            ValueError: There are no rows, or they cannot be read.
            OSError: The source cannot be reached.
        """
        tables: list[pa.Table] = []
        for table in (table for shard in range(len(self)) for table in self.tables(shard)):
            tables.append(table)
            if rows is not None and sum(map(len, tables)) >= rows:
                break
        info = self.info.copy()
        info.features = self.features
        return datasets.Dataset(self._require_rows(pa.concat_tables(tables) if tables else None).slice(0, rows), info=info)

    def _read(self, shard: int, schema: pa.Schema | None = None) -> Iterator[pa.Table]:
        num_rows = 0
        if self._source is None:
            tables = read_tables(self.files[shard], schema)
        else:
            source = self._source.shard(num_shards=len(self), index=shard).with_format("arrow")
            tables = source.iter(batch_size=_MAX_ROWS_PER_TABLE)
        try:
            for table in tables:
                yield table
                num_rows += len(table)
        except OSError as error:
            raise OSError(f"{self.name(shard)}, after {num_rows} rows: {error}") from error
        except Exception as error:
            if self._source is None:
                raise
            raise unreadable_error(f"{self.name(shard)}, after {num_rows} rows", error) from error

    def _cast(self, shard: int, table: pa.Table) -> pa.Table:
        """Cast a table of a streamed dataset to the columns and types of the first rows."""
        name, schema = self.name(shard), self.features.arrow_schema
        check_schema(table.schema, schema, name=name, first="shard")
        try:
            table = table.select(self.column_names).cast(schema)
            table.validate(full=True)  # also checks that strings are UTF-8
        except pa.ArrowException as error:
            raise unreadable_error(name, error) from error
        return table

    def _require_rows(self, table: pa.Table | None) -> pa.Table:
        if table is None or len(table) == 0:
            raise ValueError(f"{self.name(0) if len(self) else 'the stream'}: there are no rows. Add at least one.")
        return table


class Partition(NamedTuple):
    """The rows of one of several readers.

    Args:
        shards: Indices of its shards.
        first: Index of its first row in shard 0. It increases by one per shard, to distribute short shards evenly.
        step: Distance between its rows in a shard.
    """

    shards: list[int]
    first: int = 0
    step: int = 1

    def split(self, num_readers: int, reader: int) -> "Partition":
        """Return the partition of one of several readers: whole shards if there are enough, otherwise every n-th row."""
        if len(self.shards) >= num_readers:
            return Partition(self.shards[reader::num_readers], self.first, self.step)
        return Partition(self.shards, self.first + self.step * reader, self.step * num_readers)

    def first_row(self, shard: int) -> int:
        """Return the index of the first row in a shard."""
        return (self.first + shard) % self.step


class ShardReader:
    """Reads a partition endlessly, pass after pass.

    Each pass permutes the shards, and permutes rows within consecutive windows. Both permutations are seeded by the pass and
    the window, so that reading can start at any row.

    Args:
        shards: The shards.
        partition: Rows to read.
        window: Number of rows that are permuted together; 0 keeps the order of shards and rows.
        seed: Non-negative integers.

    Attributes:
        current_pass: Index of the pass of the latest rows.
    """

    def __init__(self, shards: Shards, partition: Partition, *, window: int, seed: tuple[int, ...]):
        self._shards = shards
        self._partition = partition
        self._window = window or _MAX_ROWS_PER_YIELD
        self._seed = seed if window else None
        self._counts: dict[int, int] = {}
        self.current_pass = 0

    def read_from(self, start: int) -> Iterator[pa.Table]:
        """Read the rows after the first `start` of them, counted over all passes.

        Skipped rows of local Parquet files are counted, not read. Other shards are read once, without converting their rows
        to Python objects.

        Yields:
            Tables of up to 1000 rows, with the columns `SHARD` and `ROW`.

        Raises:
            ValueError: The partition has no rows, or they cannot be read.
            OSError: A shard cannot be reached.
        """
        pass_index, skipped = self._locate(start)
        while True:
            self.current_pass = pass_index
            first_window, skipped_in_window = divmod(skipped, self._window)
            tables = self._read_pass(pass_index, first_window * self._window)
            is_empty = True
            for window, table in enumerate(_rebatch(tables, self._window), start=first_window):
                is_empty = False
                order = self._permutation(len(table), pass_index, window + 1)
                for begin in range(skipped_in_window if window == first_window else 0, len(table), _MAX_ROWS_PER_YIELD):
                    yield table.take(order[begin : begin + _MAX_ROWS_PER_YIELD])
            if is_empty:
                raise self._no_rows_error()
            pass_index, skipped = pass_index + 1, 0

    def _locate(self, start: int) -> tuple[int, int]:
        """Return the pass of a row, and the number of rows before it in this pass."""
        pass_index, skipped = 0, start
        while skipped > 0:
            pass_length = 0
            for shard in self._shard_order(pass_index):
                pass_length += self._count(shard)
                if pass_length > skipped:
                    return pass_index, skipped
            if pass_length == 0:
                raise self._no_rows_error()
            num_passes, skipped = divmod(skipped, pass_length)
            pass_index += num_passes
        return pass_index, 0

    def _read_pass(self, pass_index: int, skipped: int) -> Iterator[pa.Table]:
        """Read the rows of a pass without permuting them, except for the first ones."""
        for shard in self._shard_order(pass_index):
            if skipped > 0 and self._count(shard) <= skipped:
                skipped -= self._count(shard)
                continue
            for table in self._read_shard(shard):
                yield table.slice(skipped)
                skipped = max(skipped - len(table), 0)

    def _read_shard(self, shard: int) -> Iterator[pa.Table]:
        """Read the rows of the partition in a shard, with their locations."""
        end = 0
        for table in self._shards.tables(shard):
            start, end = end, end + len(table)
            rows = np.arange(start, end)
            if self._partition.step > 1:
                rows = rows[rows % self._partition.step == self._partition.first_row(shard)]
                table = table.take(rows - start)
            table = table.append_column(SHARD, pa.array(np.full(len(rows), shard)))
            yield table.append_column(ROW, pa.array(rows))

    def _count(self, shard: int) -> int:
        if shard not in self._counts:
            self._counts[shard] = len(range(self._partition.first_row(shard), self._shards.count(shard), self._partition.step))
        return self._counts[shard]

    def _shard_order(self, pass_index: int) -> list[int]:
        return [self._partition.shards[index] for index in self._permutation(len(self._partition.shards), pass_index, 0)]

    def _permutation(self, size: int, pass_index: int, window: int) -> np.ndarray:
        if self._seed is None:
            return np.arange(size)
        return np.random.default_rng([*self._seed, pass_index, window]).permutation(size)

    def _no_rows_error(self) -> ValueError:
        names = ", ".join(self._shards.name(shard) for shard in self._partition.shards[:3])
        if self._partition.step == 1:
            return ValueError(f"{names}: there are no rows. Add at least one.")
        return ValueError(
            f"{names}: there are too few rows for {self._partition.step} readers. Use fewer processes or fewer workers "
            "(dataloader_num_workers)."
        )


def _rebatch(tables: Iterable[pa.Table], num_rows: int) -> Iterator[pa.Table]:
    """Concatenate and split tables into tables of `num_rows` rows; the last one may be shorter."""
    pending: list[pa.Table] = []
    for table in tables:
        pending.append(table)
        while sum(map(len, pending)) >= num_rows:
            joined = pa.concat_tables(pending)
            yield joined.slice(0, num_rows).combine_chunks()  # a single chunk makes `take` fast
            pending = [joined.slice(num_rows)]
    if sum(map(len, pending)) > 0:
        yield pa.concat_tables(pending).combine_chunks()


class WorkerError(ValueError):
    """An error in a `DataLoader` worker, without the traceback that torch puts before its name and message."""

    def __init__(self, text: str):
        super().__init__(text.rpartition(f"{type(self).__name__}: ")[2])


@dataclass(eq=False)
class RowStream(IterableDataset):
    """Endless stream of model inputs; each pass over the rows has its own order.

    Shards are distributed over processes, and the shards of a process over the workers of its `DataLoader`. If there are fewer
    shards than processes or workers, each of them reads all shards and keeps every n-th row.

    Attributes:
        shards: The rows.
        encode: Function from the columns of a batch and the locations of its rows to columns of model inputs.
        shuffle_buffer: Number of rows that are permuted together, in consecutive windows; shards are permuted as well. 0
            disables shuffling.
        seed: Seed of the order.
        batch_size: Number of rows in a batch of the `DataLoader`.
        process_index: Index of this process.
        num_processes: Number of processes.
        skipped_batches: Number of batches of this process that an iteration skips, such as those before a checkpoint.
        current_pass: Index of the pass of the latest row, in the process that reads it.
    """

    shards: Shards
    encode: BatchEncoder
    shuffle_buffer: int = 0
    seed: int = 0
    batch_size: int = 1
    process_index: int = 0
    num_processes: int = 1
    skipped_batches: int = 0
    current_pass: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield rows; in a worker of a `DataLoader`, the rows of its batches.

        Raises:
            ValueError: A row cannot be read or encoded, or this process or worker has no rows.
            TypeError: A text is not a string.
            OSError: A shard cannot be reached.
            WorkerError: Any of these in a worker.
        """
        info = get_worker_info()
        if info is None:
            yield from self._rows(num_workers=1, worker=0)
            return
        # Workers are parallel themselves, and tokenizers would warn about threads that were lost by forking.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            yield from self._rows(info.num_workers, info.id)
        except (ValueError, TypeError, OSError) as error:
            raise WorkerError(str(error)) from error

    def _rows(self, num_workers: int, worker: int) -> Iterator[dict[str, Any]]:
        # Batches come from the workers in turn. Worker 0 provides the first batch, so it takes the turn after the skipped ones.
        turn = (worker + self.skipped_batches) % num_workers
        skipped_batches_of_turn = (self.skipped_batches - turn + num_workers - 1) // num_workers
        partition = Partition(list(range(len(self.shards)))).split(self.num_processes, self.process_index)
        partition = partition.split(num_workers, turn)
        seed = (self.seed, self.process_index, turn)
        reader = ShardReader(self.shards, partition, window=self.shuffle_buffer, seed=seed)
        for table in reader.read_from(skipped_batches_of_turn * self.batch_size):
            self.current_pass = reader.current_pass
            batch = table.to_pydict()
            origins = zip(batch.pop(SHARD), batch.pop(ROW), strict=True)
            columns = self.encode(batch, [self.shards.location(shard, row) for shard, row in origins])
            for values in zip(*columns.values(), strict=True):
                yield dict(zip(columns, values, strict=True))
