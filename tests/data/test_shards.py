import json
import re
from itertools import islice

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from datasets.distributed import split_dataset_by_node
from hypothesis import given
from hypothesis import strategies as st

from hf_maskattn.data.local_files import find_files
from hf_maskattn.data.shards import ROW, SHARD, ShardReader, Shards, Share
from tests.data.numbered_shards import NumberedShards

GOOD = '{"text":"a","label":"x"}\n'


@pytest.fixture
def shards(tmp_path):
    """Opens files with the given content, in the order of their names."""

    def open_files(contents, ending="jsonl"):
        for number, content in enumerate(contents):
            path = tmp_path / f"part-{number}.{ending}"
            if isinstance(content, pa.Table):
                pq.write_table(content, path)
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        files = find_files(tmp_path / f"part-*.{ending}")
        return Shards(files)

    return open_files


def rows_of(shards, shard):
    return [row for table in shards.tables(shard) for row in table.to_pylist()]


@pytest.mark.parametrize(
    ("ending", "first", "second"),
    [
        ("jsonl", GOOD, '{"text":"b","label":"y"}\n'),
        ("json", '[{"text":"a","label":"x"}]', '[{"text":"b","label":"y"}]'),
        ("csv", "text,label\na,x\n", "text,label\nb,y\n"),
        ("parquet", pa.table({"text": ["a"], "label": ["x"]}), pa.table({"text": ["b"], "label": ["y"]})),
    ],
)
def test_each_file_is_a_shard(shards, tmp_path, ending, first, second):
    found = shards([first, second], ending)
    assert len(found) == 2
    assert found.column_names == ["text", "label"]
    assert found.name(1) == str(tmp_path / f"part-1.{ending}")
    assert [rows_of(found, shard) for shard in range(2)] == [[{"text": "a", "label": "x"}], [{"text": "b", "label": "y"}]]
    assert [found.count(shard) for shard in range(2)] == [1, 1]


def test_the_first_rows_go_over_shards(shards):
    found = shards([GOOD * 3, GOOD.replace('"x"', '"y"') * 3])
    assert list(found.first_rows(4)["label"]) == ["x", "x", "x", "y"]
    assert found.first_rows().num_rows == 6
    assert found.first_rows(100).num_rows == 6
    assert found.first_rows(2).features == found.features


def test_class_labels_and_chosen_columns_are_kept(tmp_path):
    features = datasets.Features({"label": datasets.ClassLabel(names=["x", "y"]), "other": datasets.Value("int64")})
    datasets.Dataset.from_dict({"label": [1], "other": [5]}, features=features).to_parquet(tmp_path / "a.parquet")
    found = Shards(find_files(tmp_path / "a.parquet")).select(["label"])
    assert found.features == datasets.Features({"label": features["label"]})
    assert found.first_rows().features == found.features
    assert rows_of(found, 0) == [{"label": 1}]


def test_rows_of_any_streamed_dataset_are_read():
    source = datasets.Dataset.from_dict({"text": ["a", "b", "c"]}).to_iterable_dataset(num_shards=3)
    found = Shards(source)
    assert found.name(2) == "shard 2 of 3"
    assert rows_of(found, 2) == [{"text": "c"}]
    assert found.count(2) == 1


def test_the_rows_of_a_local_parquet_file_are_counted_from_its_footer(shards, monkeypatch):
    found = shards([pa.table({"text": ["a"] * 7})], "parquet")
    monkeypatch.setattr(found, "_read", None)
    assert found.count(0) == 7


@pytest.mark.parametrize(
    ("ending", "second", "message"),
    [
        ("jsonl", GOOD + '{"text":"b"\n', r"part-1\.jsonl, line 2: broken JSON in column 12"),
        ("jsonl", GOOD.encode() + '{"text":"é"}\n'.encode("latin-1"), r"part-1\.jsonl, line 2: not UTF-8 \(.*byte 0xe9\)"),
        ("csv", "text,label\na\n", r"part-1\.csv, line 2: number of cells is 1, but the header has 2"),
        ("csv", "text\na\n", r"part-1\.csv: there is no column 'label', which the first file has; its columns are text"),
        (
            "parquet",
            pa.table({"text": ["a"], "label": [[1]]}),
            r"part-1\.parquet: the column 'label' must be string, as in the first file, got list<",
        ),
        (
            "parquet",
            pa.table({"text": pa.array([b"\xff"]).cast(pa.string(), safe=False), "label": ["x"]}),
            r"part-1\.parquet: could not be read: ArrowInvalid: .*[Ii]nvalid UTF-?8",
        ),
        ("parquet", "cut off", r"part-1\.parquet: could not be read: ArrowInvalid: "),
    ],
)
def test_what_is_wrong_with_a_later_file_is_told_when_it_is_read(shards, ending, second, message):
    first = {"jsonl": GOOD, "csv": "text,label\na,x\n", "parquet": pa.table({"text": ["a"], "label": ["x"]})}[ending]
    found = shards([first, second], ending)
    assert rows_of(found, 0) == [{"text": "a", "label": "x"}]
    with pytest.raises(ValueError, match=message):
        rows_of(found, 1)


@pytest.mark.parametrize(
    ("ending", "first", "message"),
    [
        ("jsonl", '{"text":\n', r"part-0\.jsonl, line 1: broken JSON"),
        ("jsonl", "\n\n", r"part-0\.jsonl: there are no rows; give at least one"),
        ("parquet", pa.table({"text": pa.array([], pa.string())}), r"part-0\.parquet: there are no rows"),
        ("parquet", "no parquet", r"part-0\.parquet: could not be read: ArrowInvalid: "),
    ],
)
def test_what_is_wrong_with_the_first_file_is_told_at_once(shards, ending, first, message):
    with pytest.raises(ValueError, match=message):
        shards([first], ending).first_rows(5)


def test_a_source_that_cannot_be_reached_is_named():
    def rows():
        yield {"text": "a"}
        raise ConnectionError("no network")

    source = datasets.IterableDataset.from_generator(rows, features=datasets.Features({"text": datasets.Value("string")}))
    with pytest.raises(OSError, match=re.escape("shard 0 of 1, after ") + r"\d+ rows: no network"):
        rows_of(Shards(source), 0)


def test_a_parquet_file_without_rows_among_others_is_passed_over(shards):
    empty = pa.table({"text": pa.array([], pa.string())})
    found = shards([pa.table({"text": ["a"]}), empty], "parquet")
    assert rows_of(found, 1) == []
    assert found.first_rows().num_rows == 1


def test_long_files_are_read_in_pieces(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": str(row)}) + "\n" for row in range(10_001)))
    found = Shards(find_files(path))
    assert [len(table) for table in found.tables(0)] == [10_000, 1]


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
