"""The rows of a split that is too large to hold, in shards that are read as Arrow tables, one after the other."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import NamedTuple

import datasets
import numpy as np
import pyarrow as pa

from hf_maskattn.data.places import Place
from hf_maskattn.data.table_file import TableFile, unreadable
from hf_maskattn.data.table_reading import count_rows, fits, read_tables

_ROWS_READ_TOGETHER = 10_000


class Shards:
    """A split that is read from its source each time, shard by shard.

    Args:
        source: The rows, as `datasets.load_dataset(..., streaming=True)` gives them; or files, each of which is a shard.
        class_labels: Columns of files whose labels are named; they become numbers.

    Attributes:
        features: Types of the columns; those of the first rows where the source does not say.
        info: What the source says about itself.
        files: The files of the shards; empty where they are none.

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
            self._read_as = self.features
            return
        self.info = self._source.info if self._source is not None else datasets.DatasetInfo(builder_name=self.files[0].kind)
        tables = (table for shard in range(len(self)) for table in self._read(shard))
        self._read_as = datasets.Features.from_arrow_schema(self._not_none(next(tables, None)).schema)
        self.features = self._named(self._read_as)

    def __len__(self) -> int:
        """Count the shards."""
        return len(self.files) if self._source is None else self._source.num_shards

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return list(self.features)

    def name(self, shard: int) -> str:
        """Name a shard, for people."""
        return str(self.files[shard]) if self.files else f"shard {shard} of {len(self)}"

    def place(self, shard: int, row: int) -> Place:
        """Say where a row of a shard stands, for people."""
        return Place(row, self.files[shard : shard + 1], self.name(shard))

    def select(self, columns: Sequence[str]) -> "Shards":
        """Keep some of the columns."""
        chosen = copy(self)
        chosen._read_as = datasets.Features({name: self._read_as[name] for name in columns})
        chosen.features = datasets.Features({name: self.features[name] for name in columns})
        return chosen

    def tables(self, shard: int) -> Iterator[pa.Table]:
        """Read the rows of a shard.

        Args:
            shard: Its number.

        Yields:
            Up to 10,000 rows, in order, with the columns and types of `features`.

        Raises:
            ValueError: It cannot be read, or has other columns or types; the message names it, and the line if there is one.
            OSError: It cannot be reached.
        """
        for table in self._read(shard, self._read_as.arrow_schema):
            if self._source is not None:
                yield self._fit(shard, table)
            elif self._class_labels:
                yield datasets.table.table_cast(table, self.features.arrow_schema)
            else:
                yield table

    def count(self, shard: int) -> int:
        """Count the rows of a shard: see `count_rows` for files; else by reading them."""
        return count_rows(self.files[shard]) if self.files else sum(len(table) for table in self._read(shard))

    def first_rows(self, rows: int | None = None) -> datasets.Dataset:
        """Read the first rows, in the order of the shards, into memory.

        Args:
            rows: How many; `None` for all.

        Returns:
            The rows.

        Raises:
            ValueError: There are none, or they cannot be read.
            OSError: The source cannot be reached.
        """
        tables: list[pa.Table] = []
        for table in (table for shard in range(len(self)) for table in self.tables(shard)):
            tables.append(table)
            if rows is not None and sum(map(len, tables)) >= rows:
                break
        info = self.info.copy()
        info.features = self.features
        return datasets.Dataset(self._not_none(pa.concat_tables(tables) if tables else None).slice(0, rows), info=info)

    def _read(self, shard: int, schema: pa.Schema | None = None) -> Iterator[pa.Table]:
        rows = 0
        if self._source is None:
            tables = read_tables(self.files[shard], schema)
        else:
            source = self._source.shard(num_shards=len(self), index=shard).with_format("arrow")
            tables = source.iter(batch_size=_ROWS_READ_TOGETHER)
        try:
            for table in tables:
                yield table
                rows += len(table)
        except OSError as error:
            raise OSError(f"{self.name(shard)}, after {rows} rows: {error}") from error
        except Exception as error:
            if self._source is None:
                raise
            raise unreadable(f"{self.name(shard)}, after {rows} rows", error) from error

    def _named(self, features: datasets.Features) -> datasets.Features:
        return datasets.Features({name: self._class_labels.get(name, feature) for name, feature in features.items()})

    def _fit(self, shard: int, table: pa.Table) -> pa.Table:
        """Give the rows of a streamed dataset the columns and types that its first rows have."""
        missing = [name for name in self.features if name not in table.column_names]
        if missing:
            raise ValueError(
                f"{self.name(shard)}: there is no column {missing[0]!r}, which the first shard has; its columns are "
                f"{', '.join(table.column_names)}"
            )
        for field in self.features.arrow_schema:
            found = table.schema.field(field.name).type
            if not fits(found, field.type):
                raise ValueError(
                    f"{self.name(shard)}: the column {field.name!r} must be {field.type}, as in the first shard, got {found}."
                )
        try:
            table = table.select(self.column_names).cast(self.features.arrow_schema)
            # Reads the bytes of texts, which must be UTF-8.
            table.validate(full=True)
        except pa.ArrowException as error:
            raise unreadable(self.name(shard), error) from error
        return table

    def _not_none(self, table: pa.Table | None) -> pa.Table:
        if table is None or len(table) == 0:
            raise ValueError(f"{self.name(0) if len(self) else 'the stream'}: there are no rows; give at least one")
        return table


SHARD, ROW = "shard of this row", "number of this row"
"""Columns that tell where a row stands: the number of its shard and its number in it."""

_ROWS_GIVEN_TOGETHER = 1000


class Share(NamedTuple):
    """The rows that one of several readers reads.

    Args:
        shards: Numbers of its shards.
        first: Number of its first row in shard 0, one more in shard 1, and so on, so that short shards are dealt evenly.
        step: Distance between its rows in each of them.
    """

    shards: list[int]
    first: int = 0
    step: int = 1

    def deal(self, readers: int, reader: int) -> "Share":
        """Give one of several readers its part: shards if there are enough for all, else each n-th row of all shards."""
        if len(self.shards) >= readers:
            return Share(self.shards[reader::readers], self.first, self.step)
        return Share(self.shards, self.first + self.step * reader, self.step * readers)

    def first_row(self, shard: int) -> int:
        """Give the number of the first row of this share in a shard."""
        return (self.first + shard) % self.step


class ShardReader:
    """Reads a share without end, pass after pass.

    A pass takes the shards in an order of its own, and permutes the rows in windows that follow each other. Both depend on
    the seed and on the number of the pass and the window, so that the rows after any row are known without those before.

    Args:
        shards: The rows.
        share: Which of them.
        window: Rows that are permuted together; 0 leaves shards and rows in their order.
        seed: Whole numbers that are not negative.

    Attributes:
        current_pass: Number of the pass that the latest rows belong to.
    """

    def __init__(self, shards: Shards, share: Share, *, window: int, seed: tuple[int, ...]):
        self._shards = shards
        self._share = share
        self._window = window or _ROWS_GIVEN_TOGETHER
        self._seed = seed if window else None
        self._counts: dict[int, int] = {}
        self.current_pass = 0

    def rows_after(self, gone: int) -> Iterator[pa.Table]:
        """Read the rows that follow the first ones.

        The rows that are gone are counted, not read, where their shard is a local Parquet file; else they are read once,
        without turning them into Python objects.

        Args:
            gone: Number of the first rows, counted over all passes.

        Yields:
            Up to 1000 rows, with the columns `SHARD` and `ROW`.

        Raises:
            ValueError: The share has no rows, or they cannot be read.
            OSError: A shard cannot be reached.
        """
        number, gone = self._pass_of(gone)
        while True:
            self.current_pass = number
            first = gone // self._window
            is_empty = True
            for window, table in enumerate(_windows(self._tables(number, first * self._window), self._window), start=first):
                is_empty = False
                order = self._permutation(len(table), number, window + 1)
                for start in range(gone % self._window if window == first else 0, len(table), _ROWS_GIVEN_TOGETHER):
                    yield table.take(order[start : start + _ROWS_GIVEN_TOGETHER])
            if is_empty:
                raise self._empty()
            number, gone = number + 1, 0

    def _pass_of(self, gone: int) -> tuple[int, int]:
        """Find the pass in which some number of rows ends, and how many of them belong to it."""
        number = 0
        while gone > 0:
            length = 0
            for shard in self._order_of_shards(number):
                length += self._count(shard)
                if length > gone:
                    return number, gone
            if length == 0:
                raise self._empty()
            passes, gone = divmod(gone, length)
            number += passes
        return number, 0

    def _tables(self, number: int, gone: int) -> Iterator[pa.Table]:
        """Read a pass from some row on, unshuffled."""
        for shard in self._order_of_shards(number):
            if gone > 0 and self._count(shard) <= gone:
                gone -= self._count(shard)
                continue
            for table in self._own_rows(shard):
                yield table.slice(gone)
                gone = max(gone - len(table), 0)

    def _own_rows(self, shard: int) -> Iterator[pa.Table]:
        end = 0
        for table in self._shards.tables(shard):
            start, end = end, end + len(table)
            numbers = np.arange(start, end)
            if self._share.step > 1:
                numbers = numbers[numbers % self._share.step == self._share.first_row(shard)]
                table = table.take(numbers - start)
            table = table.append_column(SHARD, pa.array(np.full(len(numbers), shard)))
            yield table.append_column(ROW, pa.array(numbers))

    def _count(self, shard: int) -> int:
        if shard not in self._counts:
            self._counts[shard] = len(range(self._share.first_row(shard), self._shards.count(shard), self._share.step))
        return self._counts[shard]

    def _order_of_shards(self, number: int) -> list[int]:
        return [self._share.shards[place] for place in self._permutation(len(self._share.shards), number, 0)]

    def _permutation(self, size: int, number: int, window: int) -> np.ndarray:
        if self._seed is None:
            return np.arange(size)
        return np.random.default_rng([*self._seed, number, window]).permutation(size)

    def _empty(self) -> ValueError:
        names = ", ".join(self._shards.name(shard) for shard in self._share.shards[:3])
        if self._share.step == 1:
            return ValueError(f"there are no rows in {names}; give shards with at least one")
        return ValueError(
            f"there are too few rows in {names} for {self._share.step} readers: use fewer processes or fewer workers "
            "(dataloader_num_workers)"
        )


def _windows(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Cut tables that follow each other into tables of as many rows each; the last one may have fewer."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        while sum(map(len, held)) >= rows:
            whole = pa.concat_tables(held)
            # One chunk, so that rows can be taken in any order at once.
            yield whole.slice(0, rows).combine_chunks()
            held = [whole.slice(rows)]
    if sum(map(len, held)) > 0:
        yield pa.concat_tables(held).combine_chunks()
