import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, LargeList, List, Value

from hf_maskattn.data.labels import item_feature, label_names, label_numbers


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
def test_names_are_those_of_the_feature_or_the_sorted_values(values, feature, kind, names):
    assert label_names(_splits(values, values, feature), "label", kind) == names


@pytest.mark.parametrize(
    ("train", "validation", "kind"), [(["a", "b"], ["b", "c"], "single"), ([["a"], ["b"]], [["b", "c"]], "tags")]
)
def test_labels_that_training_does_not_have_are_named(train, validation, kind):
    message = "the split 'validation' has labels in 'label' that the training split does not have: c; .* has a, b"
    with pytest.raises(ValueError, match=message):
        label_names(_splits(train, validation), "label", kind)


def test_labels_that_are_known_are_kept_in_their_order():
    splits = _splits(["a", "b"], ["b"])
    assert label_names(splits, "label", "single", known=["c", "b", "a"]) == ["c", "b", "a"]
    message = r"the split 'train' has labels in 'label' that are not among those that were given: a; given were c, b"
    with pytest.raises(ValueError, match=message):
        label_names(splits, "label", "single", known=["c", "b"])
    with pytest.raises(ValueError, match="does not fit kind='tags'"):
        label_names(splits, "label", "tags", known=["a", "b"])


def test_class_labels_of_another_split_are_compared_by_name():
    splits = _splits([0], feature=ClassLabel(names=["a", "b"]))
    splits["test"] = Dataset.from_dict({"label": [0]}, features=Features({"label": ClassLabel(names=["b"])}))
    assert label_names(splits, "label", "single") == ["a", "b"]
    splits["test"] = Dataset.from_dict({"label": [0]}, features=Features({"label": ClassLabel(names=["c"])}))
    with pytest.raises(ValueError, match=r"the split 'test' has labels in 'label' that .*: c; "):
        label_names(splits, "label", "single")


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (["a"], "tags", "the column 'label' of the split 'train' holds one value per row .* does not fit kind='tags'"),
        ([["a"]], "single", "the column 'label' of the split 'train' holds a list per row .* does not fit kind='single'"),
        (["a"], "both", "kind='both' is none of single, multi, tags"),
        ([1.5], "single", "holds values of type float64, which are no labels"),
        (["a", None], "single", r"^row 1 \(counted from 0\): the split 'train' has no label in the column 'label';"),
        (["a", ""], "single", r"^row 1 \(counted from 0\): the split 'train' has no label in the column 'label';"),
        ([["a"], None], "multi", r"^row 1 \(counted from 0\): the split 'train' has no label in the column 'label';"),
        (
            [["a"], ["b", None]],
            "tags",
            r"^row 1 \(counted from 0\): the split 'train' has no label in the column 'label';",
        ),
    ],
)
def test_what_are_no_labels_is_told(values, kind, message):
    with pytest.raises(ValueError, match=message):
        label_names(_splits(values), "label", kind)


def test_names_come_from_the_training_split():
    with pytest.raises(ValueError, match="the labels of 'label' are read from the split 'train'; there are test"):
        label_names({"test": _splits(["a"])["train"]}, "label", "single")


@pytest.mark.parametrize(
    ("feature", "labels", "numbers"),
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
def test_each_value_stands_for_a_label(feature, labels, numbers):
    assert label_numbers(feature, labels) == numbers


def test_items_of_lists():
    assert item_feature(List(Value("int8"))) == Value("int8")
    assert item_feature(LargeList(Value("int8"))) == Value("int8")
    assert item_feature(Value("int8")) is None


def _features(**values_of):
    """Make splits whose columns have types of their own."""
    return {name: Dataset.from_dict({"label": values}) for name, values in values_of.items()}


def test_numbers_and_texts_that_are_written_alike_are_one_label():
    splits = _features(train=["1", "2", "unknown"], validation=[1, 2])
    assert label_names(splits, "label", "single") == ["1", "2", "unknown"]
    splits = _features(train=[2, 10, 1], validation=["10", "1"], test=[2])
    assert label_names(splits, "label", "single") == ["1", "2", "10"]
    splits = _features(train=[["1"], ["x", "2"]], validation=[[1], [2, 1]])
    assert label_names(splits, "label", "multi") == ["1", "2", "x"]


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        (
            ["neg", "pos"],
            [0, 1],
            "'validation' has .*: 0, 1 .whole numbers, where the split 'train' has text.; .* neg, pos",
        ),
        (["01", "02"], [1, 2], "'validation' has labels .*: 1, 2 .whole numbers, where the split 'train' has text.; .* 01, 02"),
        ([0, 1], ["neg", "0"], "'validation' has labels .*: neg .text, where the split 'train' has whole numbers.; .* 0, 1"),
        ([0, 1], [True, False], "'validation' has .* True .true or false, where the split 'train' has whole numbers.; .* 0, 1"),
    ],
)
def test_splits_that_do_not_fit_each_other_are_both_named(train, validation, message):
    with pytest.raises(ValueError, match=message):
        label_names(_features(train=train, validation=validation), "label", "single")


def test_whole_numbers_are_positions_only_where_no_split_holds_texts():
    names = ["neg", "pos"]
    assert label_names(_features(train=[0, 1], test=[1]), "label", "single", known=names) == names
    class_labels = Features({"label": ClassLabel(names=names)})
    splits = {**_features(validation=[1, 0]), "train": Dataset.from_dict({"label": [0]}, features=class_labels)}
    assert label_names(splits, "label", "single") == names
    with pytest.raises(ValueError, match=r"'train' has labels .* not among those that were given: 2; given were neg, pos"):
        label_names(_features(train=[0, 1, 2]), "label", "single", known=names)
    with pytest.raises(
        ValueError, match=r"the split 'validation' has labels .*: 0, 1 \(whole numbers, where the split 'train' has class names"
    ):
        label_names({**splits, "test": _features(test=["pos"])["test"]}, "label", "single")


@pytest.mark.parametrize(
    ("builder", "values", "names"),
    [
        ("csv", ["10", "2", "1"], ["1", "2", "10"]),
        ("csv", ["10", "-2", "0"], ["-2", "0", "10"]),
        ("csv", ["10", "2", "x"], ["10", "2", "x"]),
        ("csv", ["10", "2", "02"], ["02", "10", "2"]),
        # The order of earlier runs, which read JSON strings as strings.
        ("json", ["10", "2", "1"], ["1", "10", "2"]),
    ],
)
def test_numbers_in_csv_have_the_order_of_numbers(builder, values, names):
    split = Dataset.from_dict({"label": values}, info=datasets.DatasetInfo(builder_name=builder))
    assert label_names({"train": split}, "label", "single") == names
