import pytest
import yaml

from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.recipes.search_space import Range, default_space, parse_space
from hf_maskattn.recipes.training_defaults import resolve_recipe

TASK = "text-classification"
RECIPE = {
    "model": {"task": TASK, "embedding_dropout_prob": 0.7},
    "data": {"train_file": "a.csv", "validation_file": "b.csv", "tokenizer": "word"},
}


def test_parse_space_reads_choices_and_ranges():
    space = {
        "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "training.num_train_epochs": {"low": 5, "high": 20},
        "model.rnn_type": ["lstm", "gru"],
        "model.classifier_dropout": [None, 0.5],
        "data.tokenizer": ["word", "bpe"],
    }
    assert parse_space(space, TASK) == {
        "training.learning_rate": Range(1e-4, 1e-2, True),
        "training.num_train_epochs": Range(5, 20),
        "model.rnn_type": ("lstm", "gru"),
        "model.classifier_dropout": (None, 0.5),
        "data.tokenizer": ("word", "bpe"),
    }


@pytest.mark.parametrize(
    ("value", "item", "expected"),
    [(3, Range(1, 5), True), (2.5, Range(1, 5), False), (2, Range(1.0, 5.0), True), (True, Range(0, 1), False)],
)
def test_range_contains_numbers_of_its_kind(value, item, expected):
    assert (value in item) is expected


@pytest.mark.parametrize(
    ("name", "declared", "message"),
    [
        ("training.lerning_rate", [1, 2], r"training\.lerning_rate does not exist\. Did you mean training\.learning_rate\?"),
        ("training.patience", [1, 2], r"Did you mean training\.early_stopping_patience\?"),
        ("model.learning_rate", [1.0, 2.0], r"Did you mean training\.learning_rate\?"),
        (
            "learning_rate",
            [1.0, 2.0],
            r"of the form group\.key .*, got 'learning_rate'\. Did you mean training\.learning_rate\?",
        ),
        ("tuning.trials", [1, 2], "of the form group.key with a group of model, data, teacher, training, got"),
        (
            "training.seed",
            [1, 2],
            r"training\.seed must not vary, because trials would not be comparable\. Use one of training",
        ),
        ("data.validation_fraction", [0.1, 0.2], r"data\.validation_fraction must not vary"),
        ("model.pretrained", ["a", "b"], r"model\.pretrained must not vary"),
        ("model.hidden_size", [64], r"needs a list of different values, or a range with low and high, got \[64\]"),
        ("model.hidden_size", [64, 64], "needs a list of different values"),
        ("model.hidden_size", 64, "needs a list of different values"),
        ("model.hidden_size", [[64], [128]], "needs a list of different values"),
        ("model.hidden_size", ["64", "128"], r"model\.hidden_size must be an integer, got '64'"),
        ("model.hidden_size", {"low": 64.0, "high": 128.0}, r"model\.hidden_size must be an integer, got 64\.0"),
        ("training.learning_rate", {"low": 1e-2, "high": 1e-4}, r"low of a range must be less than high, got low=0\.01"),
        ("training.learning_rate", {"low": 0, "high": 1.0, "log": True}, "with log=true must be greater than 0, got 0"),
        ("training.learning_rate", {"low": 1e-4}, "low and high of a range must be numbers, got None"),
        ("training.learning_rate", {"low": 1e-4, "high": 1.0, "log": 10}, "log of a range must be true or false, got 10"),
        ("training.learning_rate", {"low": 1e-4, "hig": 1.0}, r"got 'hig'\. Did you mean high\?"),
        ("training.learning_rate", {"low": 1e-4, "high": 1.0, "step": 1}, "may have log, got 'step'.$"),
    ],
)
def test_invalid_space_is_reported_when_the_recipe_is_loaded(tmp_path, name, declared, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "tuning": {"space": {name: declared}}}))
    with pytest.raises((ValueError, TypeError), match=rf"^tuning\.space: .*{message}"):
        load_recipe(path)


def test_empty_space_is_reported(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "tuning": {"space": {}}}))
    with pytest.raises(ValueError, match=r"tuning\.space must have at least one key, got none\. Remove it to search"):
        load_recipe(path)


def test_key_of_another_task_is_reported():
    with pytest.raises(ValueError, match=r"data\.unknown_word_dropout has no effect with model\.task=seq2seq"):
        parse_space({"data.unknown_word_dropout": [0.0, 0.5]}, "text2text-generation")


def test_default_space_contains_the_recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    groups = resolve_recipe(load_recipe(path))
    space = parse_space(default_space(groups), TASK)
    assert len(space) == 4
    for name, item in space.items():
        group, key = name.split(".")
        assert groups[group][key] in item
