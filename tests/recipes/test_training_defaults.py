import os
import shutil
from dataclasses import replace

import pytest
import yaml
from transformers.integrations import integration_utils

from hf_maskattn.metrics import evaluation_for
from hf_maskattn.recipes.arguments import FROM_SCRATCH
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.recipes.training_defaults import (
    changed_keys,
    complete_schedule,
    resolve_recipe,
    resolved_training,
    resumed_recipe,
    save_recipe,
    select_best_metric,
    training_arguments,
)
from hf_maskattn.tasks import TASKS
from tests.training.toy_recipe import load_toy, write_recipe


def resolve(tmp_path, *overrides):
    return resolved_training(load_recipe(write_recipe(tmp_path, training={"output_dir": None}), overrides))


@pytest.fixture
def complete(tmp_path):
    """Build the arguments of a recipe with overrides, including the metric."""

    def build(*overrides, problem_type="single_label_classification"):
        recipe = load_recipe(write_recipe(tmp_path), overrides)
        return select_best_metric(
            training_arguments(recipe), recipe, evaluation_for("text-classification", problem_type=problem_type)
        )

    return build


def test_run_evaluates_and_saves_every_epoch_and_keeps_the_best(complete):
    args = complete()
    assert (args.eval_strategy, args.save_strategy, args.save_total_limit) == ("epoch", "epoch", 2)
    assert (args.load_best_model_at_end, args.metric_for_best_model, args.greater_is_better) == (True, "accuracy", True)
    assert (args.train_sampling_strategy, args.report_to) == ("group_by_length", [])


def test_output_folder_has_the_name_of_the_recipe(tmp_path):
    assert resolve(tmp_path)["output_dir"] == "runs/toy"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["eval_strategy=steps", "eval_steps=5"], ("steps", "steps", 5, 5, True)),
        (["save_strategy=steps", "save_steps=7"], ("steps", "steps", 7, 7, True)),
        (["eval_strategy=no"], ("no", "epoch", None, None, False)),
        (["save_strategy=no"], ("epoch", "no", None, None, False)),
        (
            ["eval_strategy=steps", "eval_steps=5", "save_strategy=epoch", "load_best_model_at_end=false"],
            ("steps", "epoch", 5, None, False),
        ),
    ],
)
def test_run_saves_when_it_evaluates(tmp_path, overrides, expected):
    filled = resolve(tmp_path, *(f"training.{override}" for override in overrides))
    keys = ("eval_strategy", "save_strategy", "eval_steps", "save_steps", "load_best_model_at_end")
    assert tuple(filled.get(key) for key in keys) == expected
    training_arguments(load_recipe(write_recipe(tmp_path), [f"training.{override}" for override in overrides]))


def test_run_without_validation_split_does_not_evaluate(tmp_path):
    filled = resolve(tmp_path, "data.validation_file=")
    assert (filled["eval_strategy"], filled["save_strategy"], filled["load_best_model_at_end"]) == ("no", "epoch", False)


def test_stream_evaluates_and_saves_every_500_steps(tmp_path):
    stream = ("data.streaming=true", "training.max_steps=9")
    filled = resolve(tmp_path, *stream)
    keys = ("eval_strategy", "save_strategy", "eval_steps", "save_steps", "logging_strategy", "train_sampling_strategy")
    assert tuple(filled.get(key) for key in keys) == ("steps", "steps", 500, 500, "steps", "random")
    assert resolve(tmp_path, *stream, "training.save_steps=3")["eval_steps"] == 3
    filled = resolve(tmp_path, *stream, "data.validation_file=")
    assert (filled["eval_strategy"], filled["save_strategy"]) == ("no", "steps")
    training_arguments(load_recipe(write_recipe(tmp_path), [*stream, "training.logging_steps=7"]))


def test_fields_of_the_recipe_are_kept(complete):
    args = complete("training.save_total_limit=", "training.report_to=none", "training.train_sampling_strategy=random")
    assert (args.save_total_limit, args.train_sampling_strategy) == (None, "random")
    args = complete("training.metric_for_best_model=eval_macro_f1", "training.greater_is_better=false")
    assert (args.metric_for_best_model, args.greater_is_better) == ("eval_macro_f1", False)


@pytest.mark.parametrize(
    ("overrides", "problem_type", "metric", "greater"),
    [
        (["training.metric_for_best_model=macro_f1"], "single_label_classification", "macro_f1", True),
        (["training.metric_for_best_model=loss"], "single_label_classification", "loss", False),
        (["training.metric_for_best_model=eval_loss"], "single_label_classification", "eval_loss", False),
        (["training.prediction_loss_only=true"], "single_label_classification", "loss", False),
        (["training.save_strategy=best"], "single_label_classification", "accuracy", True),
        ([], "regression", "mse", False),
    ],
)
def test_metric_of_the_best_checkpoint_and_its_direction(complete, overrides, problem_type, metric, greater):
    args = complete(*overrides, problem_type=problem_type)
    assert (args.metric_for_best_model, args.greater_is_better) == (metric, greater)


def test_contradicting_fields_raise(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path), ["training.fp16=true", "training.bf16=true"])
    with pytest.raises(ValueError, match=r"^training: "):
        training_arguments(recipe)


def test_unavailable_reporter_raises(complete, monkeypatch):
    with pytest.raises(ValueError, match=r"training\.report_to: tensorbord is not supported, only .*tensorboard"):
        complete("training.report_to=tensorbord")
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: False)
    with pytest.raises(ImportError, match=r"training\.report_to: TensorBoardCallback requires tensorboard to be installed"):
        complete("training.report_to=tensorboard")


@pytest.mark.parametrize("task", TASKS)
def test_resolved_recipe_round_trip(tmp_path, task):
    recipe = load_toy(tmp_path, task=task)
    save_recipe(recipe, tmp_path / "recipe.yaml")
    again = load_recipe(tmp_path / "recipe.yaml")
    assert resolve_recipe(again) == resolve_recipe(recipe)
    assert again.model.config["num_attention_heads"] == 1
    assert changed_keys(recipe, tmp_path / "recipe.yaml") == {}


@pytest.mark.parametrize("task", ["text-classification", "fill-mask", "text2text-generation"])
def test_resolved_recipe_of_a_stream_round_trip(tmp_path, task):
    recipe = load_recipe(write_recipe(tmp_path, task), ["data.streaming=true", "training.max_steps=5"])
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert resolve_recipe(load_recipe(tmp_path / "recipe.yaml")) == resolve_recipe(recipe)
    assert resolve_recipe(recipe)["data"]["shuffle_buffer"] == 10_000
    other = load_recipe(tmp_path / "recipe.yaml", ["data.shuffle_buffer=3"])
    assert changed_keys(other, tmp_path / "recipe.yaml") == {"data.shuffle_buffer": (10_000, 3)}


def test_changed_keys_have_old_and_new_value(tmp_path):
    path = write_recipe(tmp_path)
    save_recipe(load_recipe(path), tmp_path / "recipe.yaml")
    changed = load_recipe(path, ["model.hidden_size=10", "training.seed=7", "training.output_dir=elsewhere"])
    keys = changed_keys(changed, tmp_path / "recipe.yaml")
    assert keys == {"model.hidden_size": (8, 10), "training.seed": ("not set", 7)}


def write_relative(folder, monkeypatch, **groups):
    """Write a recipe with relative paths, and load it in its folder."""
    monkeypatch.chdir(folder)
    content = yaml.safe_load(write_recipe(folder, **groups).read_text())
    content["data"] |= {key: os.path.relpath(value) for key, value in content["data"].items() if key.endswith("_file")}
    content["training"]["output_dir"] = "runs/toy"
    (folder / "toy.yaml").write_text(yaml.safe_dump(content))
    recipe = load_recipe("toy.yaml")
    (folder / "runs" / "toy").mkdir(parents=True)
    save_recipe(recipe, folder / "runs" / "toy" / "recipe.yaml")
    return recipe


def test_resolved_recipe_has_absolute_paths(tmp_path, monkeypatch):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "elsewhere").mkdir()
    write_relative(tmp_path, monkeypatch, data={"tokenizer": "tokenizer", "vocab_size": None, "test_file": "parts/*.jsonl"})
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = load_recipe("../runs/toy/recipe.yaml")
    assert again.data.train_file == str(tmp_path / "train.jsonl")
    assert again.data.test_file == str(tmp_path / "parts" / "*.jsonl")
    assert again.data.tokenizer == str(tmp_path / "tokenizer")
    assert again.training["output_dir"] == str(tmp_path / "runs" / "toy")
    assert changed_keys(again, tmp_path / "runs" / "toy" / "recipe.yaml") == {}


def test_names_that_are_not_paths_are_kept(tmp_path, monkeypatch):
    (tmp_path / "word").mkdir()
    (tmp_path / "cldr-languages").mkdir()
    files = dict.fromkeys(("train_file", "validation_file", "test_file"))
    recipe = write_relative(tmp_path, monkeypatch, data={"source": "cldr-languages", **files})
    assert resolve_recipe(recipe)["data"]["source"] == "cldr-languages"
    assert resolve_recipe(recipe)["data"]["tokenizer"] == "word"
    recipe = load_recipe("toy.yaml", ["data.source=user/corpus"])
    assert resolve_recipe(recipe)["data"]["source"] == "user/corpus"


def test_relative_paths_of_version_0_1_are_unchanged(tmp_path, monkeypatch):
    """Version 0.1 stored paths as they were written."""
    recipe = write_relative(tmp_path, monkeypatch)
    stored = tmp_path / "runs" / "toy" / "recipe.yaml"
    stored.write_text(stored.read_text().replace(f"{tmp_path}/", ""))
    assert "train_file: train.jsonl" in stored.read_text()
    assert changed_keys(recipe, stored) == {}
    assert changed_keys(load_recipe("toy.yaml", [f"data.train_file={tmp_path}/train.jsonl"]), stored) == {}
    assert set(changed_keys(load_recipe("toy.yaml", ["data.train_file=test.jsonl"]), stored)) == {"data.train_file"}


@pytest.mark.parametrize("keep", [True, False], ids=["copied", "moved"])
def test_paths_of_a_moved_project_are_unchanged(tmp_path, monkeypatch, keep):
    (tmp_path / "project").mkdir()
    write_relative(tmp_path / "project", monkeypatch)
    shutil.copytree(tmp_path / "project", tmp_path / "other")
    monkeypatch.chdir(tmp_path / "other")
    if not keep:
        shutil.rmtree(tmp_path / "project")
    stored = tmp_path / "other" / "runs" / "toy" / "recipe.yaml"
    assert changed_keys(load_recipe("toy.yaml"), stored) == {}
    assert set(changed_keys(load_recipe("toy.yaml", ["data.train_file=test.jsonl"]), stored)) == {"data.train_file"}


def test_paths_of_a_moved_run_folder_are_unchanged(tmp_path, monkeypatch):
    recipe = write_relative(tmp_path, monkeypatch)
    (tmp_path / "runs" / "toy").rename(tmp_path / "toy")
    assert changed_keys(recipe, tmp_path / "toy" / "recipe.yaml") == {}


def from_scratch(tmp_path, *overrides):
    """Load a recipe that leaves the optimization to the defaults."""
    path = write_recipe(tmp_path)
    content = yaml.safe_load(path.read_text())
    content["training"] = {"output_dir": str(tmp_path / "run"), "use_cpu": True}
    path.write_text(yaml.safe_dump(content))
    return load_recipe(path, overrides)


def test_model_from_scratch_has_its_own_defaults(tmp_path):
    filled = resolved_training(from_scratch(tmp_path))
    assert {key: filled[key] for key in FROM_SCRATCH} == FROM_SCRATCH
    filled = resolved_training(from_scratch(tmp_path, "training.learning_rate=1e-4", "training.lr_scheduler_type=constant"))
    assert (filled["learning_rate"], filled["warmup_steps"], filled["weight_decay"]) == (1e-4, 0, 0.01)


def test_pretrained_model_has_the_defaults_of_trainer(tmp_path):
    recipe = from_scratch(tmp_path)
    pretrained = replace(recipe, model=replace(recipe.model, pretrained="somewhere"))
    assert not resolved_training(pretrained).keys() & FROM_SCRATCH.keys()
    assert complete_schedule(training_arguments(pretrained), pretrained, 300).num_train_epochs == 3


@pytest.mark.parametrize(
    ("rows", "overrides", "epochs"),
    [
        (300, [], 50),
        (100_000, [], 10),
        (300, ["training.gradient_accumulation_steps=2"], 100),
        (300, ["training.num_train_epochs=2"], 2),
    ],
)
def test_small_data_is_trained_for_500_steps(tmp_path, rows, overrides, epochs):
    recipe = from_scratch(tmp_path, *overrides)
    args = training_arguments(recipe)
    assert complete_schedule(args, recipe, rows).num_train_epochs == epochs
    assert args.num_train_epochs == recipe.training.get("num_train_epochs", 10)


def test_warmup_longer_than_the_training_raises(tmp_path):
    message = r"training\.warmup_steps must be at most 20, the number of steps of this run, got 21\. Lower it, use"
    recipe = from_scratch(tmp_path, "training.num_train_epochs=2", "training.warmup_steps=21")
    with pytest.raises(ValueError, match=message):
        complete_schedule(training_arguments(recipe), recipe, 300)
    with pytest.raises(ValueError, match=message):
        training_arguments(from_scratch(tmp_path, "training.max_steps=20", "training.warmup_steps=21"))
    recipe = from_scratch(tmp_path, "training.num_train_epochs=2", "training.warmup_steps=20")
    complete_schedule(training_arguments(recipe), recipe, 300)


def test_resumed_recipe_keeps_the_values_of_its_run(tmp_path):
    stored = tmp_path / "recipe.yaml"
    recipe = from_scratch(tmp_path)
    save_recipe(replace(recipe, training={**recipe.training, "num_train_epochs": 50}), stored)
    resumed = resumed_recipe(recipe, stored)
    assert (resumed.training["num_train_epochs"], resumed.training["learning_rate"], resumed.min_frequency) == (50, 2e-3, 2)
    assert changed_keys(recipe, stored) == {}
    changed = load_recipe(tmp_path / "toy.yaml", ["training.num_train_epochs=60", "data.unknown_word_dropout=0"])
    assert changed_keys(changed, stored) == {"training.num_train_epochs": (50, 60), "data.unknown_word_dropout": (0.25, 0)}


def test_resumed_recipe_of_version_0_1_keeps_the_defaults_of_its_time(tmp_path):
    """Version 0.1 stored no defaults of transformers, and had neither key of rare words."""
    recipe, stored = from_scratch(tmp_path), tmp_path / "recipe.yaml"
    groups = resolve_recipe(recipe)
    for key in FROM_SCRATCH:
        del groups["training"][key]
    del groups["data"]["min_frequency"], groups["data"]["unknown_word_dropout"]
    stored.write_text(yaml.safe_dump(groups))
    for again in (recipe, load_recipe(stored)):
        resumed = resumed_recipe(again, stored)
        args = training_arguments(resumed)
        defaults = type(args)(output_dir="unused")
        assert {key: getattr(args, key) for key in FROM_SCRATCH} == {key: getattr(defaults, key) for key in FROM_SCRATCH}
        assert (resumed.min_frequency, resumed.unknown_word_dropout) == (1, 0)
        assert changed_keys(again, stored) == {}
    assert resumed_recipe(from_scratch(tmp_path, "training.learning_rate=1"), stored).training["learning_rate"] == 1


@pytest.mark.parametrize(
    ("overrides", "kept"),
    [
        ([], "best_and_last"),
        (["training.keep_checkpoints=none"], "none"),
        (["training.save_total_limit=5"], "all"),
        (["training.save_total_limit=5", "training.keep_checkpoints=best_and_last"], "best_and_last"),
    ],
)
def test_kept_checkpoints(tmp_path, overrides, kept):
    path = write_recipe(tmp_path)
    assert resolved_training(load_recipe(path, overrides))["keep_checkpoints"] == kept
    save_recipe(load_recipe(path, overrides), tmp_path / "recipe.yaml")
    assert resolved_training(load_recipe(tmp_path / "recipe.yaml"))["keep_checkpoints"] == kept
    assert changed_keys(load_recipe(path), tmp_path / "recipe.yaml").keys() <= {"training.save_total_limit"}
