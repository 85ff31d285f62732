import pytest
from transformers import SchedulerType

from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.recipes.training_defaults import resolve_recipe, save_recipe, training_arguments
from tests.training import toy_recipe
from tests.training.argument_cases import CASES


def arguments(tmp_path, *overrides, task="text-classification"):
    recipe = load_recipe(toy_recipe.write_recipe(tmp_path, task), [f"training.{override}" for override in overrides])
    return training_arguments(recipe)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["lr_scheduler_type=warmup_stable_decay"],
            r"training\.lr_scheduler_type=warmup_stable_decay: .*'num_decay_steps'.*set as",
        ),
        (
            ["lr_scheduler_type=polynomial", "lr_scheduler_kwargs={lr_end: 1}"],
            r"training\.lr_scheduler_type=polynomial, training\.lr_scheduler_kwargs={'lr_end': 1}: lr_end \(1\) must be",
        ),
        (["optim=adamw_anyprecision"], r"training\.optim=adamw_anyprecision: .*torchdistx\."),
        (["optim=sgd", "adam_beta2=0.9"], r"training\.adam_beta2=0\.9 has no effect with optim=sgd: remove it\."),
        (["optim=sgd", "optim_args='momentum=0.9,eps=1'"], r"training\.optim_args=eps=1 has no effect with optim=sgd"),
        (["optim=sgd", "optim_args=nesterov=true"], r"training\.optim=sgd, training\.optim_args=nesterov=true: Nesterov mom"),
        (["eval_steps=2"], r"training\.eval_steps=2 has no effect with eval_strategy=epoch: set training\.eval_strategy=steps"),
        (["fp16=true"], r"training\.fp16=True needs an accelerator, .*: set training\.bf16=true\."),
        (["max_steps=0"], r"training\.max_steps must be at least 1, or -1 .*, got 0: no step would be trained\."),
        (["num_train_epochs=.nan"], r"training\.num_train_epochs must be greater than 0, got nan"),
        (["learning_rate=.inf"], r"training\.learning_rate must be at least 0, got inf"),
        (["label_smoothing_factor=1"], r"training\.label_smoothing_factor must be in \[0, 1\), got 1\."),
        (
            ["accelerator_config={even_batches: false}"],
            r"accelerator_config must be .*, got {'even_batches': False}",
        ),
        (
            ["fsdp=full_shard"],
            r"training\.fsdp='full_shard' is not supported: the launcher shards the model: accelerate launch",
        ),
        (
            ["metric_for_best_model=eval_bleu"],
            r"metric_for_best_model='eval_bleu' is not measured, there are: accuracy, macro_f1",
        ),
        (["log_level=loud"], r"training\.log_level must be one of .*error.*, got 'loud'\."),
    ],
)
def test_what_has_no_effect_or_fails_later_is_refused_by_name(tmp_path, overrides, message):
    with pytest.raises((ValueError, ImportError), match=message):
        arguments(tmp_path, *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["max_steps=3", "num_train_epochs=0"],  # max_steps decides
        ["optim=sgd", "adam_beta2=0.999"],  # as it is anyway
        ["eval_do_concat_batches=true", "use_liger_kernel=false", "fsdp=", "include_for_metrics=[]"],
        ["eval_strategy=no", "eval_steps=5"],  # evaluation is switched off
        ["lr_scheduler_type=constant", "warmup_steps=0"],
        ["optim=adamw_torch", "adam_epsilon=1e-7", "weight_decay=0"],
    ],
)
def test_what_is_as_it_would_be_anyway_is_taken(tmp_path, overrides):
    arguments(tmp_path, *overrides)


def test_the_metric_may_be_one_that_the_tags_decide(tmp_path):
    for metric in ("f1", "accuracy", "macro_f1", "eval_loss"):
        arguments(tmp_path, f"metric_for_best_model={metric}", task="token-classification")
    with pytest.raises(ValueError, match="'cer' is not measured, there are: f1, precision, recall, accuracy, macro_f1, loss"):
        arguments(tmp_path, "metric_for_best_model=cer", task="token-classification")


def test_only_the_loss_is_measured_where_only_the_loss_is_computed(tmp_path):
    with pytest.raises(ValueError, match=r"metric_for_best_model='accuracy' is not measured, there are: loss\."):
        arguments(tmp_path, "prediction_loss_only=true", "metric_for_best_model=accuracy")


def test_what_needs_a_validation_split_says_so(tmp_path):
    recipe = toy_recipe.write_recipe(tmp_path, data={"validation_file": None})
    for setting in ("eval_strategy=epoch", "eval_on_start=true", "load_best_model_at_end=true"):
        with pytest.raises(ValueError, match=f"training.{setting.partition('=')[0]}=.* needs a validation split: set data"):
            training_arguments(load_recipe(recipe, [f"training.{setting}"]))


def test_each_schedule_has_a_case():
    tried = {
        case.settings["lr_scheduler_type"] for cases in CASES.values() for case in cases if "lr_scheduler_type" in case.settings
    }
    assert tried == {kind.value for kind in SchedulerType}


def test_the_recipe_of_a_run_of_an_earlier_version_can_still_be_read(tmp_path):
    """It is compared with the recipe that resumes the run, and need not pass the rules of today."""
    old = toy_recipe.write_recipe(tmp_path, training={"eval_steps": 5, "use_cache": True, "include_for_metrics": ["loss"]})
    save_recipe(load_recipe(old), tmp_path / "recipe.yaml")
    assert resolve_recipe(load_recipe(tmp_path / "recipe.yaml"))["training"]["include_for_metrics"] == ["loss"]
