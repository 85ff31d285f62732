import pytest
from transformers.integrations import integration_utils

from hf_maskattn.evaluation import evaluation_for
from hf_maskattn.recipes.recipe import read_recipe
from hf_maskattn.recipes.training_defaults import choose_metric, resolved_training, training_arguments
from tests.training.toy_recipe import write_recipe


def resolve(tmp_path, *overrides):
    return resolved_training(read_recipe(write_recipe(tmp_path, training={"output_dir": None}), overrides))


@pytest.fixture
def complete(tmp_path):
    """Build the arguments of a recipe with changes, metric included."""

    def build(*overrides, problem_type="single_label_classification"):
        recipe = read_recipe(write_recipe(tmp_path), overrides)
        args = training_arguments(recipe)
        choose_metric(args, recipe, evaluation_for("text-classification", problem_type=problem_type))
        return args

    return build


def test_a_run_evaluates_and_saves_each_epoch_and_keeps_the_best(complete):
    args = complete()
    assert (args.eval_strategy, args.save_strategy, args.save_total_limit) == ("epoch", "epoch", 2)
    assert (args.load_best_model_at_end, args.metric_for_best_model, args.greater_is_better) == (True, "accuracy", True)
    assert (args.train_sampling_strategy, args.report_to) == ("group_by_length", [])


def test_the_output_folder_is_named_after_the_recipe(tmp_path):
    path = write_recipe(tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text("".join(line for line in text.splitlines(True) if "output_dir" not in line), encoding="utf-8")
    assert resolved_training(read_recipe(path))["output_dir"] == "runs/toy"


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
def test_saving_follows_evaluating(tmp_path, overrides, expected):
    filled = resolve(tmp_path, *(f"training.{override}" for override in overrides))
    keys = ("eval_strategy", "save_strategy", "eval_steps", "save_steps", "load_best_model_at_end")
    assert tuple(filled.get(key) for key in keys) == expected
    training_arguments(read_recipe(write_recipe(tmp_path), [f"training.{override}" for override in overrides]))


def test_without_validation_data_nothing_is_evaluated(tmp_path):
    filled = resolve(tmp_path, "data.validation_file=")
    assert (filled["eval_strategy"], filled["save_strategy"], filled["load_best_model_at_end"]) == ("no", "epoch", False)


def test_a_stream_evaluates_and_saves_every_so_many_steps(tmp_path):
    stream = ("data.streaming=true", "training.max_steps=9")
    filled = resolve(tmp_path, *stream)
    keys = ("eval_strategy", "save_strategy", "eval_steps", "save_steps", "logging_strategy", "train_sampling_strategy")
    assert tuple(filled.get(key) for key in keys) == ("steps", "steps", 500, 500, "steps", "random")
    assert resolve(tmp_path, *stream, "training.save_steps=3")["eval_steps"] == 3
    filled = resolve(tmp_path, *stream, "data.validation_file=")
    assert (filled["eval_strategy"], filled["save_strategy"]) == ("no", "steps")
    training_arguments(read_recipe(write_recipe(tmp_path), [*stream, "training.logging_steps=7"]))


def test_what_a_recipe_says_is_never_changed(complete):
    args = complete("training.save_total_limit=", "training.report_to=none", "training.train_sampling_strategy=random")
    assert (args.save_total_limit, args.train_sampling_strategy) == (None, "random")
    args = complete("training.metric_for_best_model=eval_macro_f1", "training.greater_is_better=false")
    assert (args.metric_for_best_model, args.greater_is_better) == ("eval_macro_f1", False)


@pytest.mark.parametrize(("metric", "greater"), [("macro_f1", True), ("loss", False), ("eval_loss", False)])
def test_the_direction_of_a_metric_is_known(complete, metric, greater):
    assert complete(f"training.metric_for_best_model={metric}").greater_is_better is greater


def test_regression_prefers_the_smaller_error(complete):
    args = complete(problem_type="regression")
    assert (args.metric_for_best_model, args.greater_is_better) == ("mse", False)


def test_saving_the_best_only_takes_the_metric_of_the_task(complete):
    args = complete("training.save_strategy=best")
    assert (args.save_strategy, args.metric_for_best_model) == ("best", "accuracy")


def test_only_the_loss_can_choose_where_only_the_loss_is_computed(complete):
    assert complete("training.prediction_loss_only=true").metric_for_best_model == "loss"


def test_a_metric_that_is_not_measured_is_refused_before_training(complete):
    with pytest.raises(ValueError, match=r"metric_for_best_model='f1' is not measured, there are: accuracy, macro_f1, loss"):
        complete("training.metric_for_best_model=f1")


def test_settings_that_do_not_go_together_are_told(tmp_path):
    recipe = read_recipe(write_recipe(tmp_path), ["training.fp16=true", "training.bf16=true"])
    with pytest.raises(ValueError, match=r"^training: "):
        training_arguments(recipe)


def test_reporting_to_what_is_not_there_is_refused_before_training(complete, monkeypatch):
    with pytest.raises(ValueError, match=r"training\.report_to: tensorbord is not supported, only .*tensorboard"):
        complete("training.report_to=tensorbord")
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: False)
    with pytest.raises(ImportError, match=r"training\.report_to: TensorBoardCallback requires tensorboard to be installed"):
        complete("training.report_to=tensorboard")
