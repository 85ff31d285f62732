import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_maskattn.data import table_reading
from hf_maskattn.data.files import TableFile, list_files
from hf_maskattn.data.schemas import JSON
from hf_maskattn.data.table_reading import RowLocation, RowLocations, count_rows, read_schema, read_tables


@pytest.fixture
def write(write):
    return lambda name, content: TableFile(str(write(name, content)))


def columns(file, schema=None):
    return pa.concat_tables(read_tables(file, schema)).to_pydict()


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_read_tables_csv_cells_are_strings(write):
    cells = ["01", "1", "1984", "1.50", "True", "NA", "None", "null", "nan", "", " a ", "2024-03-01", "-0", "1e3", "inf"]
    file = write("a.csv", "text,label\n" + "".join(f"{cell},x\n" for cell in cells))
    assert columns(file)["text"] == cells
    assert read_schema(file) == pa.schema([("text", pa.string()), ("label", pa.string())])


def test_read_tables_json_values_keep_types(write):
    row = {
        "date": "2024-03-01",
        "time": "2024-03-01T10:00:00Z",
        "created_at": "2020-01-01 00:00:00",
        "number": "01",
        "dates": ["2024-03-01", "2024-03-02"],
        "nested": [["2024-03-01"]],
        "int": 1,
        "float": 1.5,
        "bool": True,
        "nothing": None,
    }
    for name, content in (("a.jsonl", jsonl(row)), ("a.json", json.dumps([row])), ("b.json", json.dumps(row, indent=2))):
        assert columns(write(name, content)) == {key: [value] for key, value in row.items()}


def test_read_tables_objects_as_json(write):
    file = write("a.jsonl", jsonl({"meta": {"when": "2024-03-01"}}, {"meta": None}))
    assert read_schema(file).field("meta").type == JSON
    assert columns(file)["meta"] == ['{"when": "2024-03-01"}', None]


@pytest.mark.parametrize(
    "values", [["pos", 0], [1, True], [True, 0.5], [["a", 1]], [["a"], "a"], [{"a": 1}], [2**70], ["a"] * 10_001 + [1]]
)
def test_read_tables_mixed_types_as_json(write, values):
    file = write("a.jsonl", jsonl(*({"x": value} for value in values)))
    assert read_schema(file).field("x").type == JSON
    assert [json.loads(value) for value in columns(file, read_schema(file))["x"]] == values


def test_read_tables_json_rows_with_missing_columns(write):
    rows = [{"b": 1}] * 150 + [{"a": "x", "c": [1]}] + [{"b": 2.5, "d": None}]
    file = write("a.jsonl", jsonl(*rows))
    (table,) = read_tables(file)
    assert table.column_names == ["b", "a", "c", "d"]
    assert table["a"].to_pylist() == [None] * 150 + ["x", None]
    assert read_schema(file).field("b").type == pa.float64()


@pytest.mark.parametrize(
    ("wanted", "row", "message"),
    [
        (pa.string(), {"x": 0}, r"a\.jsonl, line 3: the column 'x' must have values of one type, string .*, got 0\. Convert"),
        (pa.int64(), {"x": "01"}, r"line 3: .* int64 .*, got '01'"),
        (pa.int64(), {"x": 1.5}, r"line 3: .* int64 .*, got 1\.5"),
        (pa.float64(), {"x": True}, r"line 3: .* double .*, got True"),
        (pa.list_(pa.string()), {"x": ["a", 1]}, r"line 3: .*, got \['a', 1\]"),
        (pa.string(), {"x": {"a": 1}}, r"line 3: .*, got {'a': 1}"),
    ],
)
def test_read_tables_rejects_value_of_other_type(write, wanted, row, message):
    with pytest.raises(ValueError, match=message):
        columns(write("a.jsonl", jsonl({"x": None}) + "\n" + jsonl(row)), pa.schema([("x", wanted)]))


def test_read_tables_rejects_unpaired_surrogate(write):
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: the column 'x' contains an unpaired surrogate"):
        columns(write("a.jsonl", '{"x": ["a"]}\n{"x": ["\\ud800"]}\n'))


@pytest.mark.parametrize("content", ['{"x": 0}\n{"x": 1, "y": 2, "x": 3}\n', '[{"x": 0},\n{"x": 1, "y": 2, "x": 3}]'])
def test_read_tables_rejects_key_that_is_given_twice(write, content):
    with pytest.raises(ValueError, match=r"a\.json, line 2: the key 'x' is given twice in an object\. Remove one of them"):
        columns(write("a.json", content))


def test_read_tables_nan_among_texts_is_missing(write):
    assert columns(write("a.jsonl", '{"x": "a"}\n{"x": NaN}\n{"x": null}\n')) == {"x": ["a", None, None]}
    numbers = columns(write("b.jsonl", '{"x": 0.5}\n{"x": NaN}\n'))["x"]
    assert str(numbers) == "[0.5, nan]"


@pytest.mark.parametrize("suffix", ["tsv", "TSV"])
def test_read_tables_tsv(write, suffix):
    assert columns(write(f"a.{suffix}", "a\tb\n1,5\tx\n")) == {"a": ["1,5"], "b": ["x"]}


def test_read_tables_rejects_tsv_cells_that_swallow_rows(write):
    quoted = write("a.tsv", 'a\tb\n"x\ty\nz"\tw\n')
    message = r"a\.tsv, line 3: a cell in double quotes has tabs and line breaks, as if it had swallowed rows"
    with pytest.raises(ValueError, match=message):
        columns(quoted)
    assert columns(write("b.tsv", 'a\tb\n"x\ny"\t"z\tw"\n')) == {"a": ["x\ny"], "b": ["z\tw"]}
    with pytest.raises(ValueError, match=r"a\.csv, line 2: invalid CSV: .* set data\.csv_separator if another character"):
        columns(write("a.csv", 'a;b\n"x";"y"\n'))


@pytest.mark.parametrize(("separator", "content"), [(";", "a;b\n1,5;x\n"), ("|", "a|b\n1,5|x\n"), (",", 'a,b\n"1,5",x\n')])
def test_read_tables_csv_separator(write, separator, content):
    file = write("a.csv", content)
    assert columns(TableFile(file.path, separator)) == {"a": ["1,5"], "b": ["x"]}


@pytest.mark.parametrize(
    ("suffix", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("GZ", gzip.compress)]
)
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text\né\n"),
        ("a.tsv", "text\né\n"),
        ("a.jsonl", '{"text":"é"}\n'),
        ("a.ndjson", '{"text":"é"}\n'),
        ("a.json", '[{"text":"é"}]'),
    ],
)
def test_read_tables_compressed(write, name, content, suffix, compress):
    assert columns(write(f"{name}.{suffix}", compress(content.encode()))) == {"text": ["é"]}


def test_read_tables_rejects_invalid_compression(write):
    for name, content in (
        ("a.csv.gz", b"text\nnot gzip\n"),
        ("b.csv.gz", gzip.compress(b"text\n" + b"a\n" * 9999)[:-20]),
        ("c.jsonl.xz", b"not xz"),
    ):
        with pytest.raises(ValueError, match=rf"{name}: cannot be read: \w+: "):
            columns(write(name, content))


def test_read_tables_zst_requires_zstandard(write, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(ImportError, match=r"a\.csv\.zst: reading \.zst files requires zstandard\. Run: pip install zstandard"):
        columns(write("a.csv.zst", b"x"))


@pytest.mark.parametrize(
    ("column", "kind", "values"),
    [
        (pa.array(["x", "y", "x"]).dictionary_encode(), pa.string(), ["x", "y", "x"]),
        (pa.array(["x", None], pa.string_view()), pa.string(), ["x", None]),
        (pa.array(["x"], pa.large_string()), pa.large_string(), ["x"]),
        (pa.array([["x"]], pa.list_(pa.string_view())), pa.list_(pa.string()), [["x"]]),
        (pa.array([["x"]], pa.large_list(pa.string())), pa.large_list(pa.string()), [["x"]]),
        (pa.array([["x", "y"]], pa.list_(pa.string(), 2)), pa.list_(pa.string(), 2), [["x", "y"]]),
    ],
)
def test_read_tables_parquet_strings(tmp_path, column, kind, values):
    pq.write_table(pa.table({"x": column}), tmp_path / "a.parquet")
    (table,) = read_tables(TableFile(str(tmp_path / "a.parquet")))
    assert table.schema.field("x").type == kind
    assert table["x"].to_pylist() == values


def test_read_tables_long_rows_in_smaller_tables(write, monkeypatch):
    monkeypatch.setattr(table_reading, "_MAX_CHARACTERS_PER_TABLE", 15_000)
    file = write("a.jsonl", jsonl(*[{"text": "x" * 100}] * 400))
    assert [len(table) for table in read_tables(file)] == [200, 200]


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("a.csv", 'text\na\n\n"b\nc"\nd\n', [2, 5, 6]),
        ("a.jsonl", '\n{"a":1}\n\n{"a":2}', [2, 4]),
        ("a.json", '[\n {"a":\n  1},\n {"a":2}, {"a":3}]', [2, 4, 4]),
        ("b.json", '{\n "a": 1\n}\n{\n "a": 2\n}', [1, 4]),
    ],
)
def test_row_location_has_the_line(write, name, content, lines):
    file = write(name, content)
    assert [str(RowLocation(row, [file])) for row in range(len(lines))] == [f"{file}, line {line}" for line in lines]
    assert str(RowLocation(len(lines), [file])) == f"row {len(lines)} (counted from 0)"
    assert count_rows(file) == len(lines)


def test_row_locations_of_several_files(tmp_path):
    (tmp_path / "a.csv").write_text("text\na\nb\n")
    (tmp_path / "b.csv").write_text('text\n"c\nd"\ne\n')
    locations = RowLocations(list_files(tmp_path / "*.csv"))
    lines = [str(locations[row]).rpartition("/")[2] for row in range(4)]
    assert lines == ["a.csv, line 2", "a.csv, line 3", "b.csv, line 3", "b.csv, line 4"]
    assert str(locations.select([3, 1])[0]).endswith("b.csv, line 4")
    assert str(locations.select([3, 1]).select([1])[0]).endswith("a.csv, line 3")


def test_row_location_of_parquet(tmp_path):
    for name in "ab":
        pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / f"{name}.parquet")
    assert str(RowLocations(list_files(tmp_path / "*.parquet"))[2]) == f"row 0 of {tmp_path / 'b.parquet'} (counted from 0)"


def test_row_location_without_files():
    assert str(RowLocations()[3]) == "row 3 (counted from 0)"
    assert str(RowLocation(3, source="shard 1 of 2")) == "row 3 of shard 1 of 2 (counted from 0)"
