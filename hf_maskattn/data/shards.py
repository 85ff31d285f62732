"""The rows of a split that is too large to hold, in shards that are read as Arrow tables, one after the other."""

from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from hf_maskattn.data.local_files import check_file, check_file_after_failure, unreadable

_ROWS_READ_TOGETHER = 10_000


class Shards:
    """A split that is read from its source each time, shard by shard.

    Args:
        source: The rows, as `datasets.load_dataset(..., streaming=True)` gives them.
        files: The local files that they come from, one per shard; empty where there are none.

    Attributes:
        features: Types of the columns; those of the first rows where the source does not say.
        info: What the source says about itself.

    Raises:
        ValueError: There are no rows, or the first ones cannot be read.
        OSError: The source cannot be reached.
    """

    features: datasets.Features

    def __init__(self, source: datasets.IterableDataset, files: Sequence[Path] = ()):
        self._source = source
        self._files = list(files)
        self.info = source.info
        if source.features:
            self.features = source.features
        else:
            tables = (table for shard in range(len(self)) for table in self._read(shard))
            self.features = datasets.Features.from_arrow_schema(self._not_none(next(tables, None)).schema)

    def __len__(self) -> int:
        """Count the shards."""
        return self._source.num_shards

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return list(self.features)

    def name(self, shard: int) -> str:
        """Name a shard, for people."""
        return str(self._files[shard]) if self._files else f"shard {shard} of {len(self)}"

    def select(self, columns: Sequence[str]) -> "Shards":
        """Keep some of the columns."""
        chosen = copy(self)
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
        if self._is_parquet(shard) and self.count(shard) == 0:
            # The loader of `datasets` fails at a Parquet file without rows.
            return
        if self._files:
            check_file(self._files[shard])
        for table in self._read(shard):
            missing = [name for name in self.features if name not in table.column_names]
            if missing:
                raise ValueError(
                    f"{self.name(shard)}: there is no column {missing[0]!r}, which the first shard has; its columns are "
                    f"{', '.join(table.column_names)}"
                )
            try:
                table = table.select(self.column_names).cast(self.features.arrow_schema)
                # Reads the bytes of texts, which must be UTF-8.
                table.validate(full=True)
            except pa.ArrowException as error:
                raise unreadable(self.name(shard), error) from error
            yield table

    def count(self, shard: int) -> int:
        """Count the rows of a shard: of a local Parquet file from its footer, else by reading them."""
        if not self._is_parquet(shard):
            return sum(len(table) for table in self._read(shard))
        try:
            return pq.read_metadata(self._files[shard]).num_rows
        except pa.ArrowException as error:
            raise unreadable(self.name(shard), error) from error

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

    def _is_parquet(self, shard: int) -> bool:
        return bool(self._files) and self._files[shard].suffix.lower() == ".parquet"

    def _read(self, shard: int) -> Iterator[pa.Table]:
        rows = 0
        source = self._source.shard(num_shards=len(self), index=shard).with_format("arrow")
        try:
            for table in source.iter(batch_size=_ROWS_READ_TOGETHER):
                yield table
                rows += len(table)
        except OSError as error:
            raise OSError(f"{self.name(shard)}, after {rows} rows: {error}") from error
        except Exception as error:
            if self._files:
                check_file_after_failure(self._files[shard])
            raise unreadable(f"{self.name(shard)}, after {rows} rows", error) from error

    def _not_none(self, table: pa.Table | None) -> pa.Table:
        if table is None or len(table) == 0:
            raise ValueError(f"{self.name(0) if len(self) else 'the stream'}: there are no rows; give at least one")
        return table
