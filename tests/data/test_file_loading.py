import csv
import errno
import re
import sys

import datasets
import pytest
from huggingface_hub import constants

from hf_maskattn.data import table_reading
from hf_maskattn.data.file_loading import load_file, progress_bars
from hf_maskattn.data.files import list_files
from hf_maskattn.data.loading import load_splits

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
def test_load_file_formats(write, name, content):
    split = load_file(write(name, content), split="train")
    assert list(split) == ROWS
    assert str(split.split) == "train"


def test_load_file_keeps_class_labels(tmp_path):
    features = datasets.Features({"label": datasets.ClassLabel(names=["x", "y"])})
    datasets.Dataset.from_dict({"label": [1]}, features=features).to_parquet(tmp_path / "a.parquet")
    assert load_file(tmp_path / "a.parquet", split="train").features == features


def test_load_file_csv_cells_with_line_breaks(write):
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
            r"a\.txt: the suffix must be one of \.jsonl, \.ndjson, .*, \.parquet, got '\.txt'\. .* compressed: \.gz",
        ),
        ("a.jsonl", "", r"a\.jsonl: the file has no rows"),
        ("a.jsonl", "\n\n", r"a\.jsonl: the file has no rows"),
        ("a.csv", "text,label\n", r"a\.csv: the file has no rows"),
        ("a.jsonl", '{"t":1}\n{"t":2\n{"t":3}\n', r"a\.jsonl, line 2: invalid JSON in column 7: Expecting ',' delimiter"),
        ("a.jsonl", '{"t":1}\n{"t":2}\n{"t', r"a\.jsonl, line 3: invalid JSON in column 2: Unterminated string"),
        ("a.jsonl", '\ufeff{"t":1}\n{"t":2\n', r"a\.jsonl, line 2: invalid JSON in column 7"),
        ("a.jsonl", '{"t":1}\n[1]\n', r"a\.jsonl, line 2: each row must be a JSON object \({\.\.\.}\), got list\."),
        ("a.jsonl", '{"t":1},\n{"t":2}\n', r"a\.jsonl, line 1: invalid JSON in column 8: Extra data"),
        ("a.json", '[{"t":1},\n{"t":2]', r"a\.json, line 2: invalid JSON in column 7"),
        ("a.jsonl", '{"t":"e"}\n{"t":"é"}\n'.encode("latin-1"), r"a\.jsonl, line 2: not UTF-8 \(byte 0xe9\)\. Save"),
        ("a.csv", "t,l\ne,x\né,x\n".encode("latin-1"), r"a\.csv, line 3: not UTF-8 \(byte 0xe9\)\. Save"),
        ("a.csv", "t,l\na,x\nb\n", r"a\.csv, line 3: number of cells must be 2 as in the header \(t, l\), got 1\."),
        ("a.csv", "t,l\na,x\n\nb,c,x\n", r"a\.csv, line 4: number of cells must be 2 as in the header \(t, l\), got 3\."),
        ("a.csv", 't,l\n"a,x\nb,x\n', r"a\.csv, line 3: invalid CSV"),
        ("a.csv", "\ufefft,t\na,x\n", r"a\.csv, line 1: column names must be unique, got t, t\."),
        ("a.parquet", "not parquet", r"a\.parquet: cannot be read: ArrowInvalid: "),
    ],
)
def test_load_file_rejects_invalid_files(write, name, content, message):
    with pytest.raises(ValueError, match=message):
        load_file(write(name, content), split="train")


def test_load_file_pattern_sorts_files(write, tmp_path):
    for name in ("b-2.jsonl", "b-1.jsonl", "c.jsonl"):
        write(name, f'{{"text":"{name}"}}\n')
    assert load_file(tmp_path / "b-*.jsonl", split="train")["text"][:] == ["b-1.jsonl", "b-2.jsonl"]
    assert [file.name for file in list_files(tmp_path / "*.jsonl")] == ["b-1.jsonl", "b-2.jsonl", "c.jsonl"]


def test_load_file_names_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path / 'a.csv'}: no such file in {tmp_path}.")):
        load_file(tmp_path / "a.csv", split="train")


def test_load_file_merges_types_of_files(write, tmp_path):
    write("a-1.jsonl", '{"x": 1, "y": null, "z": "pos"}\n')
    write("a-2.jsonl", '{"x": 2.5, "y": "2024-01-01", "z": 0}\n')
    split = load_file(tmp_path / "a-*.jsonl", split="train")
    assert split.features["x"] == datasets.Value("float64")
    assert isinstance(split.features["z"], datasets.Json)
    assert list(split) == [{"x": 1.0, "y": None, "z": "pos"}, {"x": 2.5, "y": "2024-01-01", "z": 0}]


def test_load_file_long_csv_has_one_type(write, tmp_path, monkeypatch):
    monkeypatch.setattr(table_reading, "_MAX_ROWS_PER_TABLE", 500)
    write("a-1.csv", "text,label\n" + "a,01\n" * 600 + "b,x\n" + "c,1\n" * 600)
    write("a-2.csv", "label,text\n" + "1,2\n" * 3)
    split = load_file(tmp_path / "a-*.csv", split="train")
    assert sorted(set(split["label"])) == ["01", "1", "x"]
    assert split[-1] == {"text": "2", "label": "1"}


def test_load_file_reloads_changed_file(write):
    for text in ("a", "b", "longer"):
        assert load_file(write("a.csv", f"text\n{text}\n"), split="train")["text"][:] == [text]


def test_load_file_rejects_different_parquet_types(tmp_path):
    for number, values in enumerate([["a"], [1]]):
        datasets.Dataset.from_dict({"x": values}).to_parquet(tmp_path / f"{number}.parquet")
    message = r"1\.parquet: the column 'x' must have one type in all files, got string and int64\."
    with pytest.raises(ValueError, match=message):
        load_file(tmp_path / "*.parquet", split="train")


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text('{"text": "a", "label": "x"}\n')
    return tmp_path / "data"


@pytest.mark.parametrize(
    "load",
    [
        lambda folder: load_file(folder / "train.jsonl", split="train"),
        lambda folder: load_splits(str(folder), validation_split=None, test_split=None),
    ],
    ids=["file", "folder"],
)
def test_unwritable_cache_is_named(rows, tmp_path, monkeypatch, load):
    (tmp_path / "file").touch()
    cache = tmp_path / "file" / "datasets"  # nobody can create a folder below a file
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cache))
    message = rf"^HF_DATASETS_CACHE must be a writable directory, got '{cache}' \(.*\)\. Set HF_DATASETS_CACHE, or HF_HOME"
    with pytest.raises(OSError, match=message):
        load(rows)


def test_unwritable_cache_of_hub(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(OSError, match=r"^HF_HUB_CACHE must be .*file.hub"):
        load_splits("user/corpus")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_named(rows, monkeypatch, code):
    def run_out_of_space(*args, **kwargs):
        try:
            raise OSError(code, "no room")
        except OSError as error:
            raise datasets.exceptions.DatasetGenerationError("An error occurred") from error

    monkeypatch.setattr(datasets.ArrowBasedBuilder, "download_and_prepare", run_out_of_space)
    with pytest.raises(OSError, match=r"^HF_DATASETS_CACHE must be .* \(no room\)"):
        load_file(rows / "train.jsonl", split="train")


@pytest.fixture
def _terminal(monkeypatch):
    datasets.enable_progress_bars()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)


@pytest.mark.usefixtures("_terminal")
@pytest.mark.parametrize(
    ("is_long", "is_terminal", "is_shown"), [(True, True, True), (False, True, False), (True, False, False)]
)
def test_progress_bars_only_for_long_work_on_terminals(monkeypatch, is_long, is_terminal, is_shown):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    with progress_bars(is_long):
        assert datasets.are_progress_bars_disabled() is not is_shown
    assert not datasets.are_progress_bars_disabled()


@pytest.mark.usefixtures("_terminal")
def test_progress_bars_are_restored_after_errors():
    with pytest.raises(KeyError), progress_bars(False):
        raise KeyError
    assert not datasets.are_progress_bars_disabled()


def test_progress_bars_stay_disabled():
    datasets.disable_progress_bars()
    with progress_bars(False):
        pass
    assert datasets.are_progress_bars_disabled()
