import json
import re

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, LargeList, List, Value

from hf_maskattn.data.columns import build_label_ids, check_columns, find_further_labels, item_feature, label_names
from hf_maskattn.data.loading import load_shards, load_splits


def _splits(train, validation=None, feature=None):
    features = None if feature is None else Features({"label": feature})
    splits = {"train": Dataset.from_dict({"label": train}, features=features)}
    if validation is not None:
        splits["validation"] = Dataset.from_dict({"label": validation}, features=features)
    return splits


@pytest.mark.parametrize(
    ("values", "feature", "kind", "names"),
    [
        (["b", "a", "b"], None, "single", ["a", "b"]),
        ([10, 9, 10], None, "single", ["9", "10"]),
        ([True, False], None, "single", ["False", "True"]),
        ([0], ClassLabel(names=["z", "a"]), "single", ["z", "a"]),
        ([["b", "a"], [], ["b"]], None, "multi", ["a", "b"]),
        ([["b", "a"], ["c"]], LargeList(Value("string")), "multi", ["a", "b", "c"]),
        ([["O", "B-X"]], None, "tags", ["B-X", "O"]),
        ([[0]], List(ClassLabel(names=["O", "B-X"])), "tags", ["O", "B-X"]),
    ],
)
def test_label_names_of_features_and_values(values, feature, kind, names):
    assert label_names(_splits(values, values, feature), "label", kind) == names


@pytest.mark.parametrize(("train", "other", "kind"), [(["a", "b"], "c", "single"), ([["a"], ["b"]], ["c"], "tags")])
def test_label_names_rejects_split_without_known_label(train, other, kind):
    message = r"labels of the split 'validation' in 'label' must be among those of the training split \(a, b\), got c\."
    with pytest.raises(ValueError, match=message):
        label_names(_splits(train, [other]), "label", kind)
    assert label_names(_splits(train, [other, train[0]]), "label", kind) == ["a", "b"]


@pytest.mark.parametrize(
    ("values", "feature", "further"),
    [
        (["a", "d", "c", "d", None], None, ["c", "d"]),
        ([["a", "d"], ["c", "d"], []], None, ["c", "d"]),
        ([2, 0, -1, 3], ClassLabel(names=["d", "x", "a", "c"]), ["c", "d"]),
        ([0, 2], None, ["2"]),
        (["a", "b"], None, []),
    ],
)
def test_find_further_labels_counts_them(values, feature, further, caplog):
    split = _splits(values, feature=feature)["train"]
    assert find_further_labels({"test": split}, "label", ["a", "b"]) == further
    assert bool(caplog.text) == bool(further)
    ids = build_label_ids(item_feature(split.features["label"]) or split.features["label"], ["a", "b"], further)
    named = {"a": 0, "b": 1, **{name: 2 + index for index, name in enumerate(further)}}
    for row in values:
        for value in row if isinstance(row, list) else [row]:
            if value not in (None, -1):
                name = feature.names[value] if feature else value
                assert ids[value] == (named[name] if name in named else named.get(str(value), value))


def test_find_further_labels_message_and_error(caplog):
    splits = {"validation": _splits(["a", "d", "c", "d"])["train"], "test": _splits([["a", "e"], ["f", "e"]])["train"]}
    assert find_further_labels(splits, "label", ["a"], is_known=lambda name: name in "af") == ["c", "d", "e"]
    assert "3 labels in 3 of 4 rows of the split 'validation' are not among those" in caplog.text
    assert "(d: 2, c: 1). They are scored as errors. Correct them, or list all labels in data.labels" in caplog.text
    assert "2 labels in 2 of 2 rows of the split 'test'" in caplog.text
    message = r"labels of the split 'test' in 'label' must be among those of the model \(x\), got a"
    with pytest.raises(ValueError, match=message):
        find_further_labels({"test": _splits(["a"])["train"]}, "label", ["x"])


def test_label_names_keeps_order_of_known_labels():
    splits = _splits(["a", "b"], ["b"])
    assert label_names(splits, "label", "single", known=["c", "b", "a"]) == ["c", "b", "a"]
    message = r"the labels of the split 'train' in 'label' must be among the given labels \(c, b\), got a\."
    with pytest.raises(ValueError, match=message):
        label_names(splits, "label", "single", known=["c", "b"])
    with pytest.raises(ValueError, match="must have a list per row, got one value"):
        label_names(splits, "label", "tags", known=["a", "b"])


def test_label_names_compares_class_labels_by_name():
    splits = _splits([0], feature=ClassLabel(names=["a", "b"]))
    splits["test"] = Dataset.from_dict({"label": [0]}, features=Features({"label": ClassLabel(names=["b"])}))
    assert label_names(splits, "label", "single") == ["a", "b"]
    splits["test"] = Dataset.from_dict({"label": [0]}, features=Features({"label": ClassLabel(names=["c"])}))
    with pytest.raises(ValueError, match=r"the labels of the split 'test' in 'label' .*, got c\."):
        label_names(splits, "label", "single")


def test_label_names_rejects_a_zero_or_one_for_each_label():
    message = r"got a 0 or 1 for each label, such as \[0, 1, 1\]\. Write the names .*, such as \['label 1', 'label 2'\]\."
    with pytest.raises(ValueError, match=message):
        label_names(_splits([[0, 1, 1], [1, 0, 0]]), "label", "multi")
    assert label_names(_splits([[0, 1], [1]]), "label", "multi") == ["0", "1"]
    assert label_names(_splits([[0], [1]]), "label", "multi") == ["0", "1"]


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (["a"], "tags", "'label' of the split 'train' must have a list per row, got one value per row"),
        ([["a"]], "single", "'label' of the split 'train' must have one label per row, got a list per row"),
        (["a"], "both", "kind must be one of single, multi, tags, got 'both'"),
        ([1.5], "single", "must be strings, integers or a ClassLabel, got float64"),
        (["a", None], "single", r"^row 1 \(counted from 0\): the split 'train' has no label in the column 'label'\."),
        (["a", ""], "single", r"^row 1 \(counted from 0\): the split 'train' has no label in the column 'label'\."),
        ([["a"], None], "multi", r"^row 1 \(counted from 0\): the split 'train' has no label in the column 'label'\."),
        ([["a"], ["b", None]], "tags", r"^row 1 \(counted from 0\): the split 'train' has no label in the column 'label'\."),
    ],
)
def test_label_names_rejects_invalid_columns(values, kind, message):
    with pytest.raises(ValueError, match=message):
        label_names(_splits(values), "label", kind)


def test_label_names_requires_training_split():
    with pytest.raises(ValueError, match="splits must contain 'train', from which labels are read, got test"):
        label_names({"test": _splits(["a"])["train"]}, "label", "single")


@pytest.mark.parametrize(
    ("feature", "labels", "ids"),
    [
        (ClassLabel(names=["a", "b", "c"]), ["c", "a"], {0: 1, 2: 0}),
        (Value("string"), ["c", "a"], {"c": 0, "a": 1}),
        (Value("int64"), ["no", "yes"], {0: 0, 1: 1}),
        (Value("int64"), ["1", "2", "unknown"], {1: 0, 2: 1}),
        (Value("int64"), ["01", "02"], {0: 0, 1: 1}),
        (Value("large_string"), ["c", "a"], {"c": 0, "a": 1}),
        (Value("string_view"), ["c", "a"], {"c": 0, "a": 1}),
        (Value("int8"), ["1", "3", "5"], {1: 0, 3: 1, 5: 2}),
        (Value("uint8"), ["3", "-1"], {3: 0, -1: 1}),
        (Value("bool"), ["False", "True"], {False: 0, True: 1}),
        (Value("bool"), ["True"], {True: 0}),
    ],
)
def test_build_label_ids(feature, labels, ids):
    assert build_label_ids(feature, labels) == ids


def _mixed_splits(**values):
    """Build splits whose columns have different types."""
    return {name: Dataset.from_dict({"label": labels}) for name, labels in values.items()}


def test_label_names_equates_integers_and_strings():
    splits = _mixed_splits(train=["1", "2", "unknown"], validation=[1, 2])
    assert label_names(splits, "label", "single") == ["1", "2", "unknown"]
    splits = _mixed_splits(train=[2, 10, 1], validation=["10", "1"], test=[2])
    assert label_names(splits, "label", "single") == ["1", "2", "10"]
    splits = _mixed_splits(train=[["1"], ["x", "2"]], validation=[[1], [2, 1]])
    assert label_names(splits, "label", "multi") == ["1", "2", "x"]


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        (
            ["neg", "pos"],
            [0, 1],
            r"'validation' .* \(neg, pos\), got 0, 1 \(integer values, but string values in the split 'train'\)",
        ),
        (["01", "02"], [1, 2], r"'validation' .* \(01, 02\), got 1, 2 \(integer values, but string values in"),
        ([0, 1], ["neg", "0"], r"'validation' .* \(0, 1\), got neg \(string values, but integer values in"),
        ([0, 1], [True, False], r"'validation' .* \(0, 1\), got False, True \(boolean values, but integer values in"),
    ],
)
def test_label_names_rejects_different_types(train, validation, message):
    with pytest.raises(ValueError, match=message):
        label_names(_mixed_splits(train=train, validation=validation), "label", "single")


def test_label_names_integers_as_ids():
    names = ["neg", "pos"]
    assert label_names(_mixed_splits(train=[0, 1], test=[1]), "label", "single", known=names) == names
    class_labels = Features({"label": ClassLabel(names=names)})
    splits = {**_mixed_splits(validation=[1, 0]), "train": Dataset.from_dict({"label": [0]}, features=class_labels)}
    assert label_names(splits, "label", "single") == names
    with pytest.raises(ValueError, match=r"'train' .* must be among the given labels \(neg, pos\), got 2\."):
        label_names(_mixed_splits(train=[0, 1, 2]), "label", "single", known=names)
    message = r"'validation' .* got 0, 1 \(integer values, but class label values in the split 'train'\)"
    with pytest.raises(ValueError, match=message):
        label_names({**splits, "test": _mixed_splits(test=["pos"])["test"]}, "label", "single")


@pytest.mark.parametrize(
    ("builder", "values", "names"),
    [
        ("csv", ["10", "2", "1"], ["1", "2", "10"]),
        ("csv", ["10", "-2", "0"], ["-2", "0", "10"]),
        ("csv", ["10", "2", "x"], ["10", "2", "x"]),
        ("csv", ["10", "2", "02"], ["02", "10", "2"]),
        # JSON strings are sorted as strings, as in earlier versions.
        ("json", ["10", "2", "1"], ["1", "10", "2"]),
    ],
)
def test_label_names_sorts_csv_integers_by_value(builder, values, names):
    split = Dataset.from_dict({"label": values}, info=datasets.DatasetInfo(builder_name=builder))
    assert label_names({"train": split}, "label", "single") == names


def test_check_columns_names_keys_of_all_missing_columns():
    message = (
        "the split 'train' has no column 'labels' (did you mean 'label'?) and no column 'words'; its columns are text, label. "
        "Set the names of the columns: data.label_column=..., data.tokens_column=...."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_columns(
            "train",
            Dataset.from_dict({"text": ["a"], "label": ["x"]}),
            {"labels": "data.label_column", "words": "data.tokens_column", "text": "data.text_column"},
        )


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ["pos", 0],
            r"line 2: the column 'label' of the split 'train' must have values of one type: .*, got 0, a number, "
            r"where .*line 1 has 'pos', a string",
        ),
        ([["O"], ["O", 1]], r"line 2: .* got 1, a number in a list, where .*line 1 has 'O', a string in a list"),
        (["pos", {"a": 1}], r"line 2: .* got {'a': 1}, an object"),
        ([None, {"a": 1}], r"line 2: .* got {'a': 1}, an object"),
        ([True, 1], r"line 2: .* got 1, a number, where .*line 1 has True, a boolean"),
        (["a", ["a"]], r"line 2: .* got 'a', a string in a list, where .*line 1 has 'a', a string"),
    ],
)
def test_check_columns_rejects_mixed_types(tmp_path, values, message, streaming):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"label": value, "other": values[:row]}) + "\n" for row, value in enumerate(values)))
    load = load_shards if streaming else load_splits
    load(train_file=path, required_columns=["other"])
    with pytest.raises(ValueError, match=message):
        load(train_file=path, required_columns=["label"])
