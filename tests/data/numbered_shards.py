"""Shards of numbers in memory."""

import pyarrow as pa

from hf_maskattn.data.table_reading import RowLocation


class NumberedShards:
    """Rows numbered in column "x", in shards of almost equal size, with the interface of `Shards`."""

    def __init__(self, rows=50, shards=4):
        self.starts = [rows * shard // shards for shard in range(shards + 1)]

    def __len__(self):
        return len(self.starts) - 1

    def name(self, shard):
        return f"shard {shard} of {len(self)}"

    def location(self, shard, row):
        return RowLocation(row, source=self.name(shard))

    def count(self, shard):
        return self.starts[shard + 1] - self.starts[shard]

    def tables(self, shard):
        numbers = list(range(self.starts[shard], self.starts[shard + 1]))
        yield from (pa.table({"x": numbers[start : start + 9]}) for start in range(0, len(numbers), 9))
