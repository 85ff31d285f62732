import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_maskattn.data.table_file import TableFile
from hf_maskattn.data.table_reading import JSON, common_schema, count_rows, fits, line_of_row, read_tables, schema_of


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return TableFile(str(path))

    return write_file


def columns(file, schema=None):
    return pa.concat_tables(read_tables(file, schema)).to_pydict()


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_csv_cells_are_what_the_file_says(write):
    cells = ["01", "1", "1984", "1.50", "True", "NA", "None", "null", "nan", "", " a ", "2024-03-01", "-0", "1e3", "inf"]
    file = write("a.csv", "text,label\n" + "".join(f"{cell},x\n" for cell in cells))
    assert columns(file)["text"] == cells
    assert schema_of(file) == pa.schema([("text", pa.string()), ("label", pa.string())])


def test_json_values_keep_their_types(write):
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


def test_objects_are_kept_as_json(write):
    file = write("a.jsonl", jsonl({"meta": {"when": "2024-03-01"}}, {"meta": None}))
    assert schema_of(file).field("meta").type == JSON
    assert columns(file)["meta"] == ['{"when": "2024-03-01"}', None]


@pytest.mark.parametrize(
    "values", [["pos", 0], [1, True], [True, 0.5], [["a", 1]], [["a"], "a"], [{"a": 1}], [2**70], ["a"] * 10_001 + [1]]
)
def test_mixed_types_are_kept_as_json(write, values):
    file = write("a.jsonl", jsonl(*({"x": value} for value in values)))
    assert schema_of(file).field("x").type == JSON
    assert [json.loads(value) for value in columns(file, schema_of(file))["x"]] == values


def test_columns_keep_their_order_and_may_be_missing_in_rows(write):
    rows = [{"b": 1}] * 150 + [{"a": "x", "c": [1]}] + [{"b": 2.5, "d": None}]
    file = write("a.jsonl", jsonl(*rows))
    (table,) = read_tables(file)
    assert table.column_names == ["b", "a", "c", "d"]
    assert table["a"].to_pylist() == [None] * 150 + ["x", None]
    assert schema_of(file).field("b").type == pa.float64()


@pytest.mark.parametrize(
    ("wanted", "row", "message"),
    [
        (pa.string(), {"x": 0}, r"a\.jsonl, line 3: the column 'x' must hold values of one type, string .*, got 0\. Write"),
        (pa.int64(), {"x": "01"}, r"line 3: .* int64 .*, got '01'"),
        (pa.int64(), {"x": 1.5}, r"line 3: .* int64 .*, got 1\.5"),
        (pa.float64(), {"x": True}, r"line 3: .* double .*, got True"),
        (pa.list_(pa.string()), {"x": ["a", 1]}, r"line 3: .*, got \['a', 1\]"),
        (pa.string(), {"x": {"a": 1}}, r"line 3: .*, got {'a': 1}"),
    ],
)
def test_a_value_of_another_type_than_before_is_told_with_its_line(write, wanted, row, message):
    with pytest.raises(ValueError, match=message):
        columns(write("a.jsonl", jsonl({"x": None}) + "\n" + jsonl(row)), pa.schema([("x", wanted)]))


def test_half_a_character_is_told_with_its_line(write):
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: the column 'x' holds half of a character"):
        columns(write("a.jsonl", '{"x": ["a"]}\n{"x": ["\\ud800"]}\n'))


@pytest.mark.parametrize("ending", ["tsv", "TSV"])
def test_tabs_separate_the_cells_of_tsv(write, ending):
    assert columns(write(f"a.{ending}", "a\tb\n1,5\tx\n")) == {"a": ["1,5"], "b": ["x"]}


@pytest.mark.parametrize(("separator", "content"), [(";", "a;b\n1,5;x\n"), ("|", "a|b\n1,5|x\n"), (",", 'a,b\n"1,5",x\n')])
def test_another_separator(write, separator, content):
    file = write("a.csv", content)
    assert columns(TableFile(file.path, separator)) == {"a": ["1,5"], "b": ["x"]}


@pytest.mark.parametrize(
    ("ending", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("GZ", gzip.compress)]
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
def test_compressed_files(write, name, content, ending, compress):
    assert columns(write(f"{name}.{ending}", compress(content.encode()))) == {"text": ["é"]}


def test_broken_compression_is_told(write):
    for name, content in (
        ("a.csv.gz", b"text\nno gzip\n"),
        ("b.csv.gz", gzip.compress(b"text\n" + b"a\n" * 9999)[:-20]),
        ("c.jsonl.xz", b"no xz"),
    ):
        with pytest.raises(ValueError, match=rf"{name}: could not be read: \w+: "):
            columns(write(name, content))


def test_what_decompresses_zst_is_named(write, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(ImportError, match=r"a\.csv\.zst: to read \.zst files, run: pip install zstandard"):
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
def test_strings_of_parquet_are_strings(tmp_path, column, kind, values):
    pq.write_table(pa.table({"x": column}), tmp_path / "a.parquet")
    (table,) = read_tables(TableFile(str(tmp_path / "a.parquet")))
    assert table.schema.field("x").type == kind
    assert table["x"].to_pylist() == values


@pytest.mark.parametrize(
    ("found", "wanted", "answer"),
    [
        (pa.null(), pa.string(), True),
        (pa.int32(), pa.int64(), True),
        (pa.int64(), pa.float64(), True),
        (pa.large_string(), pa.string(), True),
        (pa.list_(pa.null()), pa.list_(pa.string()), True),
        (pa.string(), pa.int64(), False),
        (pa.int64(), pa.string(), False),
        (pa.float64(), pa.int64(), False),
        (pa.bool_(), pa.int64(), False),
        (pa.list_(pa.string()), pa.list_(pa.int64()), False),
        (pa.string(), pa.list_(pa.string()), False),
    ],
)
def test_which_types_may_be_read_as_others(found, wanted, answer):
    assert fits(found, wanted) is answer


def test_types_that_have_nothing_in_common():
    first, second = pa.schema([("x", pa.int64())]), pa.schema([("x", pa.string())])
    assert common_schema(first, second, mix=True).field("x").type == JSON
    with pytest.raises(ValueError, match="the column 'x' is string in one file and int64 in another"):
        common_schema(first, second, mix=False)


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("a.csv", 'text\na\n\n"b\nc"\nd\n', [2, 5, 6, None]),
        ("a.jsonl", '\n{"a":1}\n\n{"a":2}', [2, 4, None]),
        ("a.json", '[\n {"a":\n  1},\n {"a":2}, {"a":3}]', [2, 4, 4, None]),
        ("b.json", '{\n "a": 1\n}\n{\n "a": 2\n}', [1, 4, None]),
    ],
)
def test_the_line_of_a_row(write, name, content, lines):
    file = write(name, content)
    assert [line_of_row(file, row) for row in range(len(lines))] == lines
    assert count_rows(file) == len(lines) - 1


def test_long_rows_are_read_in_smaller_pieces(write):
    file = write("a.jsonl", jsonl(*[{"text": "x" * 100_000}] * 400))
    assert [len(table) for table in read_tables(file)] == [200, 200]
