import pytest

from hf_maskattn.data.pronunciations import load_pronunciations


@pytest.fixture
def rows(write):
    """Loads a dictionary and returns the rows of all splits by their source."""

    def read(content, name="some.dict"):
        return {row["source"]: row for split in load_pronunciations(write(name, content)).values() for row in split}

    return read


def test_load_pronunciations_merges_lines_of_a_word(rows):
    read = rows("read R EH1 D\nred R EH1 D\nread(2) R IY1 D\n")
    assert read["r e a d"] == {"source": "r e a d", "target": "R EH D", "references": ["R EH D", "R IY D"]}
    assert set(read) == {"r e a d", "r e d"}


def test_load_pronunciations_ignores_stress(rows):
    assert rows("a AH0\na(2) EY1\na(3) AH1\n")["a"]["references"] == ["AH", "EY"]


def test_load_pronunciations_first_one_is_target(rows):
    assert rows("read(2) R IY1 D\nread R EH1 D\n")["r e a d"]["target"] == "R IY D"


@pytest.mark.parametrize(
    "content",
    [
        ";;; # comment\n## comment\nd'or D AO1 R # foreign french\n\n",
        "\ufeffD'OR  D AO1 R\r\n",
        "d'or\tD AO1 R\n;;;\n",
        "d'or\tD AO1 R # a\tcomment with a tab\n",
    ],
)
def test_load_pronunciations_line_formats(rows, content):
    assert rows(content) == {"d ' o r": {"source": "d ' o r", "target": "D AO R", "references": ["D AO R"]}}


def test_load_pronunciations_removes_only_stress(rows):
    read = rows("ma1 m a1 AA3 AA1X XAA1 AA1\n#hash-mark HH\n(1) W\nre\u0301 R EY2\n")
    assert read["m a 1"]["target"] == "m a1 AA3 AA1X XAA1 AA"
    assert set(read) == {"m a 1", "# h a s h - m a r k", "( 1 )", "r é"}


def test_load_pronunciations_each_word_is_in_one_split(tmp_path):
    path = tmp_path / "some.DICT"
    path.write_text("".join(f"word{number}{variant} W\n" for number in range(200) for variant in ("", "(2)")))
    splits = load_pronunciations(path)
    words = [word for split in splits.values() for word in split["source"]]
    assert len(set(words)) == len(words) == 200
    assert splits["train"].num_rows > 130
    assert splits["test"].info.description == "Words and their pronunciations, from some.DICT."


def test_load_pronunciations_omits_empty_splits(tmp_path):
    path = tmp_path / "some.dict"
    path.write_text("d D IY1\n")
    assert list(load_pronunciations(path)) == ["train"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a AH0\nb\n", r"some\.dict, line 2: the word 'b' has no phonemes\. Add them, or remove the line"),
        ("a # AH0\n", r"some\.dict, line 1: the word 'a' has no phonemes"),
        ("new york\tN UW Y AO R K\n", r"some\.dict, line 1: the word must not contain white space, got 'new york'"),
        (b"a AH0\n\xe9 EY1\n", r"some\.dict, line 2: not UTF-8 .*byte 0xe9"),
        (";;; nothing\n\n", r"some\.dict: the file has no words"),
        ("", r"some\.dict: the file has no words"),
    ],
)
def test_load_pronunciations_rejects_invalid_lines(rows, content, message):
    with pytest.raises(ValueError, match=message):
        rows(content)


def test_load_pronunciations_rejects_other_and_missing_files(rows, tmp_path):
    with pytest.raises(ValueError, match=r"cmudict-0\.7b: the suffix must be \.dict, got '\.7b'\. Rename the file"):
        rows("a AH0\n", name="cmudict-0.7b")
    with pytest.raises(FileNotFoundError, match=r"missing\.dict: no such file in"):
        load_pronunciations(tmp_path / "missing.dict")
