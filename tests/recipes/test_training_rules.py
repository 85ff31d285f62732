import pytest
from transformers import SchedulerType

from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.recipes.training_defaults import resolve_recipe, save_recipe, training_arguments
from tests.training.argument_cases import CASES
from tests.training.toy_recipe import write_recipe


def arguments(tmp_path, *overrides, task="text-classification"):
    recipe = load_recipe(write_recipe(tmp_path, task), [f"training.{override}" for override in overrides])
    return training_arguments(recipe)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["lr_scheduler_type=warmup_stable_decay"],
            r"training\.lr_scheduler_type=warmup_stable_decay: .*'num_decay_steps'.*Set arg",
        ),
        (
            ["lr_scheduler_type=polynomial", "lr_scheduler_kwargs={lr_end: 1}"],
            r"training\.lr_scheduler_type=polynomial, training\.lr_scheduler_kwargs={'lr_end': 1}: lr_end \(1\) must be",
        ),
        (["optim=adamw_anyprecision"], r"training\.optim=adamw_anyprecision: .*torchdistx\."),
        (["optim=sgd", "adam_beta2=0.9"], r"training\.adam_beta2=0\.9 has no effect with optim=sgd\. Remove it\."),
        (["optim=sgd", "optim_args='momentum=0.9,eps=1'"], r"training\.optim_args=eps=1 has no effect with optim=sgd"),
        (["optim=sgd", "optim_args=nesterov=true"], r"training\.optim=sgd, training\.optim_args=nesterov=true: Nesterov mom"),
        (
            ["eval_steps=2"],
            r"training\.eval_steps=2 has no effect with eval_strategy=epoch\. Set training\.eval_strategy=steps",
        ),
        (["fp16=true"], r"training\.fp16=true has no effect on CPUs\. Use training\.bf16=true\."),
        (["max_steps=0"], r"training\.max_steps must be at least 1, or -1 .*, got 0\."),
        (["num_train_epochs=.nan"], r"training\.num_train_epochs must be greater than 0, got nan"),
        (["learning_rate=.inf"], r"training\.learning_rate must be at least 0, got inf"),
        (["label_smoothing_factor=1"], r"training\.label_smoothing_factor must be in \[0, 1\), got 1\."),
        (["accelerator_config={even_batches: false}"], r"accelerator_config must be .*, got {'even_batches': False}"),
        (
            ["fsdp=full_shard"],
            r"training\.fsdp='full_shard' is not supported, because the launcher shards the model\. Use accelerate launch",
        ),
        (
            ["metric_for_best_model=eval_bleu"],
            r"metric_for_best_model must be one of accuracy, macro_f1, loss, got 'eval_bleu'",
        ),
        (["log_level=loud"], r"training\.log_level must be one of .*error.*, got 'loud'\."),
    ],
)
def test_field_without_effect_raises(tmp_path, overrides, message):
    with pytest.raises((ValueError, ImportError), match=message):
        arguments(tmp_path, *overrides)


def test_label_smoothing_with_a_crf_raises(tmp_path):
    path = write_recipe(tmp_path, "token-classification", model={"use_crf": True})
    with pytest.raises(ValueError, match=r"label_smoothing_factor=0\.1 is not supported with model\.use_crf=true"):
        training_arguments(load_recipe(path, ["training.label_smoothing_factor=0.1"]))


@pytest.mark.parametrize(
    "overrides",
    [
        ["max_steps=3", "num_train_epochs=0"],  # max_steps wins
        ["optim=sgd", "adam_beta2=0.999"],  # the default
        ["eval_do_concat_batches=true", "use_liger_kernel=false", "fsdp=", "include_for_metrics=[]"],
        ["eval_strategy=no", "eval_steps=5"],  # evaluation is off
        ["lr_scheduler_type=constant", "warmup_steps=0"],
        ["optim=adamw_torch", "adam_epsilon=1e-7", "weight_decay=0"],
    ],
)
def test_field_at_its_default_is_accepted(tmp_path, overrides):
    arguments(tmp_path, *overrides)


def test_metric_may_be_any_of_token_classification(tmp_path):
    for metric in ("f1", "accuracy", "macro_f1", "eval_loss"):
        arguments(tmp_path, f"metric_for_best_model={metric}", task="token-classification")
    with pytest.raises(ValueError, match="must be one of f1, precision, recall, accuracy, macro_f1, loss, got 'cer'"):
        arguments(tmp_path, "metric_for_best_model=cer", task="token-classification")


def test_prediction_loss_only_has_no_other_metric(tmp_path):
    with pytest.raises(ValueError, match=r"metric_for_best_model must be one of loss, got 'accuracy'\."):
        arguments(tmp_path, "prediction_loss_only=true", "metric_for_best_model=accuracy")


def test_evaluation_without_validation_split_raises(tmp_path):
    recipe = write_recipe(tmp_path, data={"validation_file": None})
    for setting in ("eval_strategy=epoch", "eval_on_start=true", "load_best_model_at_end=true"):
        message = rf"training\.{setting.partition('=')[0]}=.* has no effect without a validation split\. Set data"
        with pytest.raises(ValueError, match=message):
            training_arguments(load_recipe(recipe, [f"training.{setting}"]))


def test_every_schedule_has_a_case():
    tried = {
        case.settings["lr_scheduler_type"] for cases in CASES.values() for case in cases if "lr_scheduler_type" in case.settings
    }
    assert tried == {kind.value for kind in SchedulerType}


def test_stored_recipe_need_not_pass_the_checks(tmp_path):
    """It is only compared with the recipe that resumes the run."""
    old = write_recipe(tmp_path, training={"eval_steps": 5, "use_cache": True, "include_for_metrics": ["loss"]})
    save_recipe(load_recipe(old), tmp_path / "recipe.yaml")
    assert resolve_recipe(load_recipe(tmp_path / "recipe.yaml"))["training"]["include_for_metrics"] == ["loss"]
