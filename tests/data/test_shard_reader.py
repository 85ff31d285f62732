from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from datasets.distributed import split_dataset_by_node
from hypothesis import given
from hypothesis import strategies as st

from hf_maskattn.data.local_files import find_files
from hf_maskattn.data.shard_reader import ROW, SHARD, ShardReader, Share
from hf_maskattn.data.shards import Shards
from tests.data.numbered_shards import NumberedShards


def reader(shards, share=None, window=7, seed=(3,)):
    return ShardReader(shards, share or Share(list(range(len(shards)))), window=window, seed=seed)


def rows(found, count, gone=0):
    return list(islice((row for table in found.rows_after(gone) for row in table["x"].to_pylist()), count))


@pytest.mark.parametrize(("shards", "readers"), [(4, 2), (5, 2), (4, 3), (4, 4), (3, 4), (1, 3)])
def test_rows_are_dealt_as_datasets_splits_them_by_node(shards, readers):
    source = Dataset.from_dict({"x": list(range(50))}).to_iterable_dataset(num_shards=shards)
    strategy = "shards" if shards >= readers else "examples"
    everything = Share(list(range(shards)))
    found = Shards(source)
    for number in range(readers):
        own = reader(found, everything.deal(readers, number), window=0)
        expected = [row["x"] for row in split_dataset_by_node(source, number, readers, strategy=strategy)]
        if strategy == "examples":
            # Counted within each shard here, so that a reader need not know how many rows came before.
            table = next(own.rows_after(0))
            places = zip(table[SHARD].to_pylist(), table[ROW].to_pylist(), strict=True)
            assert {(row - shard) % readers for shard, row in places} == {number}
            assert abs(len(table) - len(expected)) <= 1
        else:
            assert rows(own, len(expected)) == expected


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.integers(24, 60))
def test_each_row_is_dealt_to_one_reader(shards, processes, workers, count):
    found = NumberedShards(count, shards)
    everything = Share(list(range(shards)))
    dealt = []
    for process in range(processes):
        for worker in range(workers):
            share = everything.deal(processes, process).deal(workers, worker)
            dealt += [
                (shard, row) for shard in share.shards for row in range(share.first_row(shard), found.count(shard), share.step)
            ]
    assert sorted(dealt) == [(shard, row) for shard in range(shards) for row in range(found.count(shard))]


def test_each_pass_has_each_row_once_in_another_order():
    passes = [rows(reader(NumberedShards()), 50, gone) for gone in (0, 50, 100)]
    assert all(sorted(found) == list(range(50)) for found in passes)
    assert passes[0] != passes[1] != passes[2] != list(range(50))


def test_the_order_depends_on_the_seed():
    first, again, other = (rows(reader(NumberedShards(), seed=seed), 50) for seed in [(3, 1), (3, 1), (3, 2)])
    assert first == again != other


def test_rows_move_within_their_window_and_shards_as_a_whole():
    table = next(reader(NumberedShards(60, 6), window=10).rows_after(0))
    assert len(set(table[SHARD].to_pylist())) == 1
    assert sorted(table[ROW].to_pylist()) == list(range(10)) != table[ROW].to_pylist()


def test_each_window_is_permuted_in_its_own_way():
    found = rows(reader(NumberedShards(60, 1), window=10), 20)
    assert found[:10] != [row - 10 for row in found[10:]]


def test_without_a_window_nothing_moves():
    assert rows(reader(NumberedShards(), window=0), 70) == [*range(50), *range(20)]


def test_windows_go_over_shards():
    table = next(reader(NumberedShards(50, 10), window=20).rows_after(0))
    assert len(table) == 20
    assert len(set(table[SHARD].to_pylist())) == 4


@pytest.mark.parametrize("window", [0, 1, 7, 50, 1000])
@pytest.mark.parametrize("share", [None, Share([2, 0]), Share([0, 1, 2, 3], first=1, step=3)])
def test_the_rows_after_any_row_are_those_that_were_left(window, share):
    shards = NumberedShards()
    everything = rows(reader(shards, share, window), 120)
    for gone in range(0, 110, 3):
        assert rows(reader(shards, share, window), 10, gone) == everything[gone : gone + 10], gone


def test_more_rows_than_are_given_together_make_no_difference():
    shards = NumberedShards(3300, 2)
    everything = rows(reader(shards, window=2500), 6600)
    assert sorted(everything[:3300]) == list(range(3300))
    for gone in (999, 1000, 2400, 2501, 3299, 3300, 5001):
        assert rows(reader(shards, window=2500), 40, gone) == everything[gone : gone + 40]


def test_parquet_files_that_are_gone_are_not_read_again(tmp_path, monkeypatch):
    files = [tmp_path / f"{number}.parquet" for number in range(5)]
    for number, file in enumerate(files):
        pq.write_table(pa.table({"x": list(range(10 * number, 10 * number + 10))}), file)
    shards, read = Shards(find_files(tmp_path / "*.parquet")), []
    everything = rows(reader(shards, window=5), 100)
    tables = shards.tables
    monkeypatch.setattr(shards, "tables", lambda shard: read.append(shard) or tables(shard))
    assert rows(reader(shards, window=5), 3, gone=37) == everything[37:40]
    assert len(read) == 1
    assert rows(reader(shards, window=5), 3, gone=87) == everything[87:90]
    assert len(read) == 2


def test_a_share_without_rows_is_told_not_waited_for():
    with pytest.raises(ValueError, match=r"too few rows in shard 0 of 1 for 4 readers: use fewer processes or .*workers"):
        rows(reader(NumberedShards(3, 1), Share([0], 3, 4)), 1)
    with pytest.raises(ValueError, match="too few rows"):
        rows(reader(NumberedShards(3, 1), Share([0], 3, 4)), 1, gone=5)
