"""One reader's share of the shards, read again and again in orders that depend on a seed and the place alone."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from hf_maskattn.data.shards import Shards

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
