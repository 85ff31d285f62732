"""Task data from CSV files, whose labels are strings."""

from itertools import islice

import pytest

from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training.task_data import evaluation_data, training_data
from tests.training.toy_recipe import STREAM, write_recipe


def write_csv(tmp_path, **splits):
    """Write a CSV file of each split from its labels. Its texts are digits, no two of them the same."""
    for name, labels in splits.items():
        rows = "".join(f"{1984 + row},{label}\n" for row, label in enumerate(labels))
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{rows}")
    return ["data.min_frequency=1", *(f"data.{name}_file={tmp_path / f'{name}.csv'}" for name in splits)]


def load_csv(tmp_path, *overrides, **splits):
    path = write_recipe(tmp_path)
    others = [f"data.{name}_file=" for name in ("validation", "test") if name not in splits]
    return training_data(load_recipe(path, [*others, *write_csv(tmp_path, **splits), *overrides]), seed=0)


@pytest.mark.parametrize("stream", [(), STREAM])
def test_csv_labels_are_the_same_in_all_splits(tmp_path, stream):
    data = load_csv(tmp_path, *stream, train=["1", "unknown", "2", "01"], validation=["2", "1"], test=["01"])
    assert data.labels == ["01", "1", "2", "unknown"]
    assert [row["labels"] for row in islice(data.splits["train"], 4)] == [1, 3, 2, 0]
    assert data.splits["validation"]["labels"][:] == [2, 1]
    assert data.splits["test"]["labels"][:] == [0]


def test_integer_csv_labels_are_sorted_as_numbers(tmp_path):
    data = load_csv(tmp_path, train=["10", "9", "1"], test=["9"])
    assert data.labels == ["1", "9", "10"]
    recipe = load_recipe(tmp_path / "toy.yaml", write_csv(tmp_path, train=["1"], validation=["9"], test=["10", "9"]))
    # A model that an earlier version trained, which read the cells as numbers, has the same names.
    assert evaluation_data(recipe, 0, "test", data.tokenizer, ["1", "9", "10"]).splits["test"]["labels"][:] == [2, 1]


@pytest.mark.parametrize("stream", [(), STREAM])
@pytest.mark.parametrize("value", ["3,5", "1_000", "nan", "", "x"])
def test_invalid_csv_number_raises_with_its_line(tmp_path, value, stream):
    label = f'"{value}"'
    message = rf"train\.csv, line 4, column 'label': the label must be a (finite )?number for regression, got '{value}'"

    def read(*values):
        data = load_csv(tmp_path, "model.problem_type=regression", *stream, train=values)
        return [row["labels"] for row in islice(data.splits["train"], len(values))]

    with pytest.raises(ValueError, match=message):
        read("1", "2.5", label, "-3e-1")
    assert read("1", "2.5", " 7 ", "-3e-1") == pytest.approx([1, 2.5, 7, -0.3])


def test_held_out_rows_are_reported_with_their_lines(tmp_path):
    path = tmp_path / "train.csv"
    for line in (2, 7, 12):
        labels = ["1", "2"] * 6
        labels[line - 2] = "x"
        with pytest.raises(ValueError, match=rf"train\.csv, line {line}, column 'label': .* a number for regression, got 'x'"):
            load_csv(tmp_path, "model.problem_type=regression", "data.validation_fraction=0.4", train=labels)
        path.unlink()


@pytest.mark.parametrize("empty", ["", '""'])
def test_missing_label_raises_with_its_line(tmp_path, empty):
    with pytest.raises(ValueError, match=r"validation\.csv, line 3: the split 'validation' has no label in the column 'label'"):
        load_csv(tmp_path, train=["a", "b"], validation=["a", empty])


@pytest.mark.parametrize("stream", [(), (*STREAM, "data.sample_rows=3")])
def test_single_label_in_the_train_split_raises(tmp_path, stream):
    message = r"the column 'label' must have at least two different labels, got a in .*\. Set another column"
    with pytest.raises(ValueError, match=message):
        load_csv(tmp_path, *stream, train=["a", "a", "a"])
    assert len(load_csv(tmp_path, *stream, "data.labels=[a, b]", train=["a", "a", "a"]).labels) == 2
    tagged = write_recipe(tmp_path, "token-classification", make=lambda row: {**row, "tags": ["O"] * len(row["tags"])})
    with pytest.raises(ValueError, match=r"the column 'tags' must have at least two different labels, got O in "):
        training_data(load_recipe(tagged, stream), seed=0)


def test_split_with_one_label_is_evaluated(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path), write_csv(tmp_path, train=["a"], validation=["a"], test=["b", "b"]))
    tokenizer = load_csv(tmp_path, train=["a", "b"]).tokenizer
    assert evaluation_data(recipe, 0, "test", tokenizer, ["a", "b"]).splits["test"]["labels"][:] == [1, 1]


def test_validation_fraction_is_the_same_in_evaluation(tmp_path):
    labels = ["rare", *"abab" * 5]
    overrides = ("data.validation_fraction=0.4",)
    for seed in range(4):
        recipe = load_recipe(
            write_recipe(tmp_path), ["data.validation_file=", "data.test_file=", *write_csv(tmp_path, train=labels), *overrides]
        )
        data = training_data(recipe, seed)
        assert data.labels == ["a", "b", "rare"]
        scored = evaluation_data(recipe, seed, "validation", data.tokenizer, data.labels)
        assert list(scored.splits["validation"]) == list(data.splits["validation"])


def test_csv_separator(tmp_path):
    (tmp_path / "train.csv").write_text("text;label\na,b;x\nc;y\n")
    path = write_recipe(tmp_path)
    files = [f"data.train_file={tmp_path / 'train.csv'}", "data.validation_file=", "data.test_file="]
    overrides = [*files, "data.min_frequency=1"]
    with pytest.raises(ValueError, match=r"The only column is 'text;label', .* Set data\.csv_separator=';'"):
        training_data(load_recipe(path, overrides), seed=0)
    for separator, setting in ((";", ";"), ("\t", "\\t"), ("|", '"|"')):
        (tmp_path / "train.csv").write_text("text;label\na,b;x\nc;y\n".replace(";", separator))
        recipe = load_recipe(path, [*overrides, f"data.csv_separator={setting}"])
        assert training_data(recipe, seed=0).labels == ["x", "y"]
