import csv
import re

import datasets
import pytest

from hf_maskattn.data.local_files import find_files, load_file


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


ROWS = [{"text": "é, a", "label": "x"}, {"text": "b", "label": "y"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text":"é, a","label":"x"}\n\n{"text":"b","label":"y"}\n'),
        ("a.JSONL", '\ufeff{"text":"é, a","label":"x"}\n{"text":"b","label":"y"}'),
        ("a.json", '[{"text":"é, a","label":"x"},\n {"text":"b","label":"y"}]'),
        ("a.csv", 'text,label\n"é, a",x\nb,y\n'),
        ("b.csv", '\ufefftext,label\r\n"é, a",x\r\n\r\nb,y\r\n'),
    ],
)
def test_text_files_are_read(write, name, content):
    split = load_file(write(name, content), split="train")
    assert list(split) == ROWS
    assert str(split.split) == "train"


def test_parquet_keeps_class_labels(tmp_path):
    features = datasets.Features({"label": datasets.ClassLabel(names=["x", "y"])})
    datasets.Dataset.from_dict({"label": [1]}, features=features).to_parquet(tmp_path / "a.parquet")
    assert load_file(tmp_path / "a.parquet", split="train").features == features


def test_csv_texts_that_look_like_missing_values_stay_texts(write):
    split = load_file(write("a.csv", "text,label\nNone,NA\nnull,\n"), split="train")
    assert list(split) == [{"text": "None", "label": "NA"}, {"text": "null", "label": ""}]


def test_csv_cells_may_be_long_and_hold_line_breaks(write):
    text = "a\n" * 100_000
    limit = csv.field_size_limit()
    assert load_file(write("a.csv", f'text,label\n"{text}",x\n'), split="train")["text"] == [text]
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.txt",
            "x",
            r"a\.txt: the ending '\.txt' is none of \.jsonl, \.ndjson, \.json, \.csv, \.tsv, \.parquet; .* compressed: \.gz",
        ),
        ("a.jsonl", "", r"a\.jsonl: the file has no rows"),
        ("a.jsonl", "\n\n", r"a\.jsonl: the file has no rows"),
        ("a.csv", "text,label\n", r"a\.csv: the file has no rows"),
        ("a.jsonl", '{"t":1}\n{"t":2\n{"t":3}\n', r"a\.jsonl, line 2: broken JSON in column 7: Expecting ',' delimiter"),
        ("a.jsonl", '{"t":1}\n{"t":2}\n{"t', r"a\.jsonl, line 3: broken JSON in column 2: Unterminated string"),
        ("a.jsonl", '\ufeff{"t":1}\n{"t":2\n', r"a\.jsonl, line 2: broken JSON in column 7"),
        ("a.jsonl", '{"t":1}\n[1]\n', r"a\.jsonl, line 2: a JSON object \({\.\.\.}\) was expected, got list"),
        ("a.jsonl", '{"t":1},\n{"t":2}\n', r"a\.jsonl, line 1: broken JSON in column 8: Extra data"),
        ("a.json", '[{"t":1},\n{"t":2]', r"a\.json, line 2: broken JSON in column 7"),
        ("a.jsonl", '{"t":"e"}\n{"t":"é"}\n'.encode("latin-1"), r"a\.jsonl, line 2: not UTF-8 \(.*byte 0xe9\); save"),
        ("a.csv", "t,l\ne,x\né,x\n".encode("latin-1"), r"a\.csv, line 3: not UTF-8 \(.*byte 0xe9\); save"),
        ("a.csv", "t,l\na,x\nb\n", r"a\.csv, line 3: number of cells is 1, but the header has 2 \(t, l\)"),
        ("a.csv", "t,l\na,x\n\nb,c,x\n", r"a\.csv, line 4: number of cells is 3, but the header has 2 \(t, l\)"),
        ("a.csv", 't,l\n"a,x\nb,x\n', r"a\.csv, line 3: broken CSV"),
        ("a.csv", "\ufefft,t\na,x\n", r"a\.csv, line 1: two columns have the same name \(t, t\)"),
        ("a.parquet", "not parquet", r"a\.parquet: could not be read: ArrowInvalid: "),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_place(write, name, content, message):
    with pytest.raises(ValueError, match=message):
        load_file(write(name, content), split="train")


def test_a_pattern_stands_for_all_files_that_fit_in_the_order_of_their_names(write, tmp_path):
    for name in ("b-2.jsonl", "b-1.jsonl", "c.jsonl"):
        write(name, f'{{"text":"{name}"}}\n')
    assert load_file(tmp_path / "b-*.jsonl", split="train")["text"][:] == ["b-1.jsonl", "b-2.jsonl"]
    assert [file.name for file in find_files(tmp_path / "*.jsonl")] == ["b-1.jsonl", "b-2.jsonl", "c.jsonl"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(write, tmp_path):
    write("a1.jsonl", '{"text":"other"}\n')
    assert load_file(write("a[1].jsonl", '{"text":"this"}\n'), split="train")["text"][:] == ["this"]


def test_one_broken_file_of_many_is_named(write, tmp_path):
    write("a.jsonl", '{"text":"a"}\n')
    write("b.jsonl", '{"text":\n')
    with pytest.raises(ValueError, match=r"b\.jsonl, line 1: broken JSON"):
        load_file(tmp_path / "*.jsonl", split="train")


def test_patterns_that_do_not_work_are_told(write, tmp_path):
    write("a.csv", "text\na\n")
    write("a.jsonl", '{"text":"a"}\n')
    with pytest.raises(FileNotFoundError, match=r"x-\*\.csv: no file fits this pattern \(looked from "):
        find_files(tmp_path / "x-*.csv")
    with pytest.raises(ValueError, match=r"both a\.csv and a\.jsonl fit; give a pattern of files of one kind"):
        find_files(tmp_path / "a.*")
    with pytest.raises(ValueError, match=r"is a folder; name its files, such as .*\*\.jsonl"):
        find_files(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path / 'a.csv'}: there is no such file")):
        load_file(tmp_path / "a.csv", split="train")


def test_types_are_those_of_all_files_together(write, tmp_path):
    write("a-1.jsonl", '{"x": 1, "y": null, "z": "pos"}\n')
    write("a-2.jsonl", '{"x": 2.5, "y": "2024-01-01", "z": 0}\n')
    split = load_file(tmp_path / "a-*.jsonl", split="train")
    assert split.features["x"] == datasets.Value("float64")
    assert isinstance(split.features["z"], datasets.Json)
    assert list(split) == [{"x": 1.0, "y": None, "z": "pos"}, {"x": 2.5, "y": "2024-01-01", "z": 0}]


def test_blocks_of_a_long_csv_file_have_one_type(write, tmp_path):
    write("a-1.csv", "text,label\n" + "a,01\n" * 30_000 + "b,x\n" + "c,1\n" * 30_000)
    write("a-2.csv", "label,text\n" + "1,2\n" * 3)
    split = load_file(tmp_path / "a-*.csv", split="train")
    assert sorted(set(split["label"])) == ["01", "1", "x"]
    assert split[-1] == {"text": "2", "label": "1"}


def test_a_changed_file_is_read_again(write):
    for text in ("a", "b", "longer"):
        assert load_file(write("a.csv", f"text\n{text}\n"), split="train")["text"][:] == [text]


def test_parquet_files_of_different_types_are_told(tmp_path):
    for number, values in enumerate([["a"], [1]]):
        datasets.Dataset.from_dict({"x": values}).to_parquet(tmp_path / f"{number}.parquet")
    message = r"1\.parquet: the column 'x' is int64 in one file and string in another"
    with pytest.raises(ValueError, match=message):
        load_file(tmp_path / "*.parquet", split="train")


@pytest.mark.parametrize("folder", ["data[1]", "[a-z]", "a*b", "x?", "[!x]"])
def test_a_folder_whose_name_looks_like_a_pattern(tmp_path, folder):
    (tmp_path / folder / "sub").mkdir(parents=True)
    for name in ("train-1.jsonl", "train-2.jsonl", "test.jsonl"):
        (tmp_path / folder / name).write_text('{"text": "a"}\n')
    (tmp_path / folder / "sub" / "train-3.jsonl").write_text('{"text": "a"}\n')
    found = find_files(tmp_path / folder / "train-*.jsonl")
    assert [file.name for file in found] == ["train-1.jsonl", "train-2.jsonl"]
    assert [file.name for file in find_files(tmp_path / folder / "train-[2-3].jsonl")] == ["train-2.jsonl"]
    assert [file.name for file in find_files(tmp_path / folder / "**" / "train-*.jsonl")][-1] == "train-2.jsonl"
    assert [file.name for file in find_files(tmp_path / folder / "s?b" / "*.jsonl")] == ["train-3.jsonl"]
    assert load_file(tmp_path / folder / "train-*.jsonl", split="train").num_rows == 2


@pytest.mark.parametrize(
    ("name", "separator", "message"),
    [
        ("a.csv", "", "csv_separator must be one character that is no quote and no line break, got ''. Put it in quotes"),
        ("a.csv", "ab", "csv_separator must be one character .*, got 'ab'"),
        ("a.csv", '"', "csv_separator must be one character .*, got '\"'"),
        ("a.jsonl", ";", r"csv_separator=';' has no meaning for .*a\.jsonl, which is no CSV file. Remove it\."),
    ],
)
def test_separators_that_do_not_work_are_refused(write, name, separator, message):
    with pytest.raises(ValueError, match=message):
        find_files(write(name, "x"), separator)
