"""The rows of a split that is too large to hold, in shards that are read as Arrow tables, one after the other."""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy

import datasets
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
