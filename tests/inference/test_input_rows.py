import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_maskattn.inference.input_rows import InputRow, load_rows, parse_row


def test_parse_row_of_text_words_and_columns():
    assert parse_row("a b", "text", "row 0") == InputRow("a b", {"text": "a b"})
    assert parse_row(["a", "b"], "text", "row 0") == InputRow("a b", {"text": "a b"}, {0: (0, 1), 1: (2, 3)})
    row = {"id": 7, "review": "a b"}
    assert parse_row(row, "review", "row 0") == InputRow("a b", row)


def test_parse_row_skips_invisible_words():
    row = parse_row({"tokens": ["ab", " ", "c.", ""]}, "tokens", "row 0")
    assert row.text == "ab c."
    assert row.words == {0: (0, 2), 2: (3, 5)}
    assert row.word_indices(1, 4) == [0, 2]
    assert row.word_indices(4, 5) == [2]


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        ({"a": "x", "b": 1}, ValueError, "row 3: the row must have the column 'text', got 'a', 'b'"),
        ({"text": 5}, TypeError, "row 3: the column 'text' must be a string or a list of strings, got 5."),
        ({"text": ["a", 1]}, TypeError, r"row 3: the column 'text' must be .* got \['a', 1\]."),
        ({"text": "a", "error": ""}, ValueError, "row 3: a row must not have the column 'error', which the result adds"),
        (None, TypeError, "row 3: a text must be a string or a list of strings, got None."),
    ],
)
def test_parse_row_errors_name_the_row(item, error, message):
    with pytest.raises(error, match=message):
        parse_row(item, "text", "row 3")


@pytest.fixture
def model(tmp_path):
    """A folder with a recipe that names a column."""
    (tmp_path / "recipe.yaml").write_text(
        "model: {task: token-classification}\n"
        "data: {tokenizer: word, train_file: x.jsonl, text_column: sentence, tokens_column: words}\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("row", "column", "found"),
    [
        ({"words": ["a"], "sentence": "a"}, None, "sentence"),
        ({"text": "b", "words": ["a"]}, None, "words"),
        ({"text": "b", "n": 1}, None, "text"),
        ({"text": "b", "other": "c"}, "other", "other"),
    ],
)
def test_load_rows_selects_the_column(model, row, column, found):
    (model / "rows.jsonl").write_text(json.dumps(row))
    assert load_rows(model / "rows.jsonl", model, column) == ([row], found)


def test_load_rows_with_the_separator_of_the_recipe(model):
    text = (model / "recipe.yaml").read_text().replace("train_file: x.jsonl", "train_file: x.csv, csv_separator: ';'")
    (model / "recipe.yaml").write_text(text)
    for name, content in {"a.csv": "sentence;n\na, b;1\n", "b.csv": 'sentence,n\n"a, b",1\n'}.items():
        (model / name).write_text(content)
        assert load_rows(model / name, model) == ([{"sentence": "a, b", "n": "1"}], "sentence")


def test_load_rows_names_a_separator_that_is_not_known(tmp_path):
    (tmp_path / "a.csv").write_text("text;n\na;1\n")
    with pytest.raises(ValueError, match=r"The cells seem to be separated by another character than a comma\. Save the file"):
        load_rows(tmp_path / "a.csv", tmp_path)


def test_load_rows_of_each_format(tmp_path):
    (tmp_path / "a.csv").write_text('id,text\n01,"x, y"\n02,z\n')
    pq.write_table(pa.table({"id": ["01", "02"], "text": ["x, y", "z"]}), tmp_path / "a.parquet")
    expected = [{"id": "01", "text": "x, y"}, {"id": "02", "text": "z"}], "text"
    assert load_rows(tmp_path / "a.csv", tmp_path) == expected
    assert load_rows(tmp_path / "a.parquet", tmp_path) == expected
    (tmp_path / "a.json").write_text('[{"text": "x", "meta": {"k": [1]}}, {"text": ["y"]}]')
    assert load_rows(tmp_path / "a.json", tmp_path) == ([{"text": "x", "meta": {"k": [1]}}, {"text": ["y"]}], "text")


def test_load_rows_errors(model):
    (model / "rows.jsonl").write_text('{"a": 1, "b": "x"}\n\n{"b": 2, "a": ""}\n')
    with pytest.raises(ValueError, match=r"must have a column 'sentence' or 'words' or 'text', got the columns a, b\. Set"):
        load_rows(model / "rows.jsonl", model)
    with pytest.raises(ValueError, match="must have a column 'c', got the columns a, b"):
        load_rows(model / "rows.jsonl", model, "c")
    with pytest.raises(TypeError, match=r"rows\.jsonl, line 3: the column 'b' must be a string or a list of strings, got 2"):
        load_rows(model / "rows.jsonl", model, "b")
    (model / "rows.csv").write_text("text\n")
    with pytest.raises(ValueError, match="the file has no rows"):
        load_rows(model / "rows.csv", model)
