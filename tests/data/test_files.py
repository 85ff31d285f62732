import pytest

from hf_maskattn.data.file_loading import load_file
from hf_maskattn.data.files import expand_pattern, list_files, read_lines, split_lines


def test_list_files_rejects_invalid_patterns(write, tmp_path):
    write("a.csv", "text\na\n")
    write("a.jsonl", '{"text":"a"}\n')
    with pytest.raises(FileNotFoundError, match=r"x-\*\.csv: no file matches this pattern in .*\. Correct the pattern\."):
        list_files(tmp_path / "x-*.csv")
    with pytest.raises(ValueError, match=r"must have the same format, got a\.csv and a\.jsonl\. Use a pattern"):
        list_files(tmp_path / "a.*")
    with pytest.raises(ValueError, match=r"must be a file, got a folder\. Name its files, such as .*\*\.jsonl"):
        list_files(tmp_path)


@pytest.mark.parametrize("folder", ["data[1]", "[a-z]", "a*b", "x?", "[!x]"])
def test_list_files_in_folder_named_like_a_pattern(tmp_path, folder):
    (tmp_path / folder / "sub").mkdir(parents=True)
    for name in ("train-1.jsonl", "train-2.jsonl", "test.jsonl"):
        (tmp_path / folder / name).write_text('{"text": "a"}\n')
    (tmp_path / folder / "sub" / "train-3.jsonl").write_text('{"text": "a"}\n')
    files = list_files(tmp_path / folder / "train-*.jsonl")
    assert [file.name for file in files] == ["train-1.jsonl", "train-2.jsonl"]
    assert [file.name for file in list_files(tmp_path / folder / "train-[2-3].jsonl")] == ["train-2.jsonl"]
    assert [file.name for file in list_files(tmp_path / folder / "**" / "train-*.jsonl")][-1] == "train-2.jsonl"
    assert [file.name for file in list_files(tmp_path / folder / "s?b" / "*.jsonl")] == ["train-3.jsonl"]
    assert load_file(tmp_path / folder / "train-*.jsonl", split="train").num_rows == 2


@pytest.mark.parametrize(
    ("name", "separator", "message"),
    [
        ("a.csv", "", "csv_separator must be one character other than a double quote or a line break, got ''. Quote it"),
        ("a.csv", "ab", "csv_separator must be one character .*, got 'ab'"),
        ("a.csv", '"', "csv_separator must be one character .*, got '\"'"),
        ("a.jsonl", ";", r"csv_separator=';' has no effect on .*a\.jsonl, which is not a CSV file\. Remove it\."),
    ],
)
def test_list_files_rejects_invalid_separators(write, name, separator, message):
    with pytest.raises(ValueError, match=message):
        list_files(write(name, "x"), separator)


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"\xef\xbb\xbfa\r\nb", ["a", "b"]),
        ("a\u2028b\n".encode(), ["a\u2028b"]),
    ],
)
def test_read_lines(tmp_path, content, lines):
    (tmp_path / "texts").write_bytes(content)
    assert read_lines(tmp_path / "texts") == lines
    assert split_lines(content, "stdin") == lines


def test_read_lines_rejects_other_encodings():
    with pytest.raises(ValueError, match=r"^stdin, line 2: not UTF-8 \(byte 0xe4\)"):
        split_lines(b"a\nB\xe4r\n", "stdin")


def test_expand_pattern_returns_existing_file(write, tmp_path):
    write("a1.csv", "x")
    assert expand_pattern(write("a[1].csv", "x")) == [tmp_path / "a[1].csv"]
    assert expand_pattern(tmp_path / "b*.csv") == []
