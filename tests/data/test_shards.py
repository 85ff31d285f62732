import json
import re

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_maskattn.data.local_files import find_files
from hf_maskattn.data.shards import Shards

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
