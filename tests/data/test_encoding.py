import math

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from hf_maskattn.data.encoding import encode_for_masked_lm, encode_texts
from hf_maskattn.data.tokenizers import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["ab ba"], kind="char", vocab_size=20, max_length=99)


def _rows(labels, feature=None, texts=None):
    texts = ["ab", "b a b", ""][: len(labels)] if texts is None else texts
    split = Dataset.from_dict({"text": texts, "label": labels, "unused": [0] * len(labels)})
    return split if feature is None else split.cast_column("label", feature)


def _encode(split, tokenizer, labels, **changes):
    arguments = {"text_column": "text", "label_column": "label", "labels": labels, "max_length": 4, **changes}
    return encode_texts(split, tokenizer, **arguments)


def test_encode_texts_truncates_and_drops_columns(tokenizer):
    encoded = _encode(_rows(["x", "y", "x"]), tokenizer, ["x", "y"])
    assert encoded.column_names == ["input_ids", "attention_mask", "labels"]
    assert encoded["input_ids"][:] == [tokenizer.convert_tokens_to_ids(list(tokens)) for tokens in ("ab", "b▁a▁", "")]
    assert encoded["attention_mask"][:] == [[1, 1], [1, 1, 1, 1], []]


@pytest.mark.parametrize(
    ("values", "feature", "labels", "ids"),
    [
        (["y", "x"], None, ["x", "y"], [1, 0]),
        ([0, 1], ClassLabel(names=["x", "y"]), ["y", "x"], [1, 0]),
        ([0, 1], None, ["x", "y"], [0, 1]),
        ([5, 3], None, ["3", "5"], [1, 0]),
        ([True, False], None, ["False", "True"], [1, 0]),
    ],
)
def test_encode_texts_single_label(tokenizer, values, feature, labels, ids):
    encoded = _encode(_rows(values, feature), tokenizer, labels)
    assert encoded["labels"][:] == ids
    assert encoded.features["labels"] == Value("int64")


@pytest.mark.parametrize(
    ("values", "feature"),
    [
        ([["z", "x"], [], ["y", "y"]], None),
        ([[2, 0], [], [1]], None),
        ([[2, 0], [], [1]], List(ClassLabel(names=["x", "y", "z"]))),
    ],
)
def test_encode_texts_multi_label(tokenizer, values, feature):
    encoded = _encode(_rows(values, feature), tokenizer, ["x", "y", "z"])
    assert encoded["labels"][:] == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    assert encoded.features["labels"] == List(Value("float32"))


@pytest.mark.parametrize("values", [[1.5, -2.0], [1, 2], ["1.5", "2"]])
def test_encode_texts_regression(tokenizer, values):
    encoded = _encode(_rows(values), tokenizer, None)
    assert encoded["labels"][:] == [float(value) for value in values]
    assert encoded.features["labels"] == Value("float32")


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (["x", "q"], ["x", "y"], r"row 1 .*, column 'label': the label must be one of x, y, got 'q'\."),
        ([0, 2], ["x", "y"], r"row 1 .*, column 'label': the label must be one of x, y, got 2\."),
        ([0, -1], ["x", "y"], r"row 1 .*, column 'label': the label must be one of x, y, got -1\."),
        (["x", None], ["x", "y"], r"row 1 .*, column 'label': the label is missing\."),
        (["x", ""], ["x", "y"], r"row 1 .*, column 'label': the label is missing\."),
        ([["x"], ["q"]], ["x", "y"], r"row 1 .*, column 'label': the label must be one of x, y, got 'q'\."),
        ([["x"], None], ["x", "y"], r"row 1 .*, column 'label': the list of labels is missing\."),
        (["1", "a"], None, r"row 1 .*, column 'label': the label must be a number for regression, got 'a'\."),
        ([1.0, None], None, r"row 1 .*, column 'label': the label must be a number for regression, got None\."),
        ([1.0, math.nan], None, r"row 1 .*, column 'label': the label must be a finite number for regression, got nan\."),
    ],
)
def test_encode_texts_rejects_invalid_labels(tokenizer, values, labels, message):
    with pytest.raises(ValueError, match=message):
        _encode(_rows(values), tokenizer, labels)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", None], r"row 1 \(counted from 0\): the text must be a string, got None \(NoneType\)\."),
        ([1, 2], r"row 0 \(counted from 0\): the text must be a string, got 1 \(int\)\."),
    ],
)
def test_encode_texts_rejects_invalid_texts(tokenizer, texts, message):
    with pytest.raises(TypeError, match=message):
        _encode(_rows(["x", "x"], texts=texts), tokenizer, ["x"])
    with pytest.raises(TypeError, match=message):
        encode_for_masked_lm(Dataset.from_dict({"text": texts}), tokenizer, text_column="text", max_length=4)


def test_encode_texts_counts_rows_across_batches(tokenizer):
    values = ["x"] * 1100 + ["q"]
    with pytest.raises(ValueError, match="row 1100"):
        _encode(_rows(values, texts=["a"] * 1101), tokenizer, ["x"])


def test_encode_for_masked_lm(tokenizer):
    encoded = encode_for_masked_lm(_rows([0, 0]), tokenizer, text_column="text", max_length=4)
    assert encoded.features == Features({"input_ids": List(Value("int32")), "attention_mask": List(Value("int8"))})
    assert [len(row) for row in encoded["input_ids"]] == [2, 4]


def test_encode_texts_short_data_without_progress_bar(tokenizer, capsys):
    datasets.enable_progress_bars()
    _encode(_rows(["x"]), tokenizer, ["x"])
    assert "Encoding" not in capsys.readouterr().err
