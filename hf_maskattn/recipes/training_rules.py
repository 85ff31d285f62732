"""What the group `training` of a recipe may not say: settings without an effect here, or that fail after hours of work."""

import copy
import math
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from accelerate.utils import DynamoBackend
from transformers import SchedulerType, Trainer, TrainingArguments, get_scheduler

from hf_maskattn.metrics.classification import SingleLabelMetric, SpanMetric
from hf_maskattn.metrics.task_metrics import evaluation_for, text_metric_names
from hf_maskattn.recipes.arguments import arguments_class
from hf_maskattn.recipes.recipe import Recipe

_ALL_ROWS_AT_ONCE = "metrics are computed from all rows of a split at once"
_LAUNCHER = "the launcher shards the model: accelerate launch --config_file, with a file as in configs/accelerate"
_LENGTHS = "lengths are counted in tokens, the rows have no column for them"

FIXED = {
    "batch_eval_metrics": _ALL_ROWS_AT_ONCE,
    "eval_do_concat_batches": _ALL_ROWS_AT_ONCE,
    "eval_use_gather_object": "predictions are tensors, which are gathered as tensors",
    "include_for_metrics": "the metric of the task decides what it reads",
    "label_names": "labels are in the column `labels`, whatever data.label_column is called in the files",
    "length_column_name": _LENGTHS,
    "remove_unused_columns": "rows hold what the model reads and nothing else",
    "debug": "underflow_overflow cannot read the masks of these models, which are bool; tpu_metrics_debug is for TPUs",
    "sortish_sampler": "Trainer does not read it; training.train_sampling_strategy=group_by_length groups rows by length",
    "generation_config": (
        "the tokenizer and data.max_target_length decide; training.generation_max_length and training.generation_num_beams "
        "change them"
    ),
    "use_cache": "a model that is trained has no use for a cache; generate(use_cache=...) is said by those who call the model",
    "use_liger_kernel": "its kernels replace layers of transformers, which these recurrent models do not have",
    "liger_kernel_config": "its kernels replace layers of transformers, which these recurrent models do not have",
    "enable_jit_checkpoint": "it would mark a run that SIGTERM stops as finished; Ctrl-C (SIGINT) saves a checkpoint",
    "save_on_each_node": "one process writes the folder of a run, which all nodes share",
    "fsdp": _LAUNCHER,
    "fsdp_config": _LAUNCHER,
    "deepspeed": _LAUNCHER,
    "parallelism_config": _LAUNCHER,
}
"""Fields of `TrainingArguments` that stay at their default, and why."""

_ACCELERATOR_KEYS = ("non_blocking", "gradient_accumulation_kwargs")
"""What `training.accelerator_config` may hold. The others change how rows are dealt to processes: see process_shares.py."""

_LEAST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "eval_accumulation_steps": 1,
    "save_total_limit": 1,
    "torch_empty_cache_steps": 1,
    "ddp_bucket_cap_mb": 1,
    "ddp_timeout": 1,
    "dataloader_num_workers": 0,
    "dataloader_prefetch_factor": 1,
    "learning_rate": 0,
    "warmup_steps": 0,
    "eval_delay": 0,
    "max_grad_norm": 0,
    "weight_decay": 0,
    "seed": 0,
    "data_seed": 0,
}
_POSITIVE = ("adam_epsilon", "neftune_noise_alpha", "logging_steps", "eval_steps", "save_steps")
_BELOW_ONE = ("adam_beta1", "adam_beta2", "label_smoothing_factor")
_SEEDS = ("seed", "data_seed")

_NEEDS = {
    "activation_checkpointing_kwargs": ("activation_checkpointing", "gradient_checkpointing"),
    "gradient_checkpointing_kwargs": ("activation_checkpointing", "gradient_checkpointing"),
    "dataloader_persistent_workers": ("dataloader_num_workers",),
    "dataloader_prefetch_factor": ("dataloader_num_workers",),
    "dataloader_multiprocessing_context": ("dataloader_num_workers",),
}
"""Settings that have no effect unless one of others is set."""

_OF_THE_OPTIMIZER = ("optim", "optim_args", "optim_target_modules", "adam_beta1", "adam_beta2", "adam_epsilon")
_SOME_STEPS = 100
"""Stands for the number of steps where the rows, which are not read yet, decide."""

_WITHOUT_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")
_WITHOUT_KWARGS = ("constant", "constant_with_warmup")

_COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


def check_training(recipe: Recipe) -> None:
    """Refuse settings that would have no effect, no meaning for the task, or that would fail later.

    Args:
        recipe: The recipe.

    Raises:
        ValueError: Names the key, the value and the way out.
    """
    training = {key: value for key, value in recipe.training.items() if value is not None}
    defaults = {item.name: item for item in fields(arguments_class(recipe.model.task))}
    for key, reason in FIXED.items():
        if key in training and training[key] != _default(defaults[key]):
            raise ValueError(f"training.{key}={training[key]!r} is not supported: {reason}. Remove it.")
    for key, value in training.items():
        choices = _choices(key) or defaults[key].metadata.get("choices")
        if choices and value not in choices:
            raise ValueError(f"training.{key} must be one of {', '.join(map(str, choices))}, got {value!r}.")
    _check_ranges(training)
    _check_length_of_run(training)
    _check_accelerator(training.get("accelerator_config"))
    _check_companions(training)
    _check_optimization_settings(training)
    _check_scoring(recipe, training)


def check_optimization(args: TrainingArguments, recipe: Recipe) -> None:
    """Refuse an optimizer or a schedule that cannot be built, by building both for a model of one weight.

    Args:
        args: The arguments of Trainer.
        recipe: The recipe that they were built from.

    Raises:
        ValueError: If the optimizer or the schedule refuses its settings, or does not read one of them.
        ImportError: If a package that the optimizer comes from is not installed.
    """
    model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False))
    if args.optim_target_modules is not None:
        args = _changed(args, "optim_target_modules", "all-linear")  # the recipe names layers that this model does not have
    try:
        optimizer_class, settings = Trainer.get_optimizer_cls_and_kwargs(args, model)
    except ImportError as error:
        raise ImportError(f"training.optim={args.optim.value}: {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{_as_set(recipe, _OF_THE_OPTIMIZER, args.optim.value)}: {error}.") from error
    _check_that_it_reads(args, recipe, model, (optimizer_class, settings))
    if not issubclass(optimizer_class, torch.optim.Optimizer) or settings.keys() & {"model", "optimizer_dict"}:
        return  # built from the layers of a whole model
    try:
        optimizer = optimizer_class(settings.pop("params", model.parameters()), **settings)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{_as_set(recipe, _OF_THE_OPTIMIZER, args.optim.value)}: {error}.") from error
    steps = args.max_steps if args.max_steps > 0 else _SOME_STEPS
    try:
        get_scheduler(
            args.lr_scheduler_type,
            optimizer,
            num_warmup_steps=args.get_warmup_steps(steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=args.lr_scheduler_kwargs,
        )
    except (TypeError, ValueError) as error:
        names = ("lr_scheduler_type", "lr_scheduler_kwargs")
        raise ValueError(
            f"{_as_set(recipe, names, args.lr_scheduler_type.value)}: {error}. Arguments of a schedule are set as "
            "training.lr_scheduler_kwargs={name: value}."
        ) from error


def check_arguments(args: TrainingArguments, recipe: Recipe) -> None:
    """Refuse what the device of a run, or the moments at which it logs, evaluates and saves, leave without an effect.

    Args:
        args: The arguments of Trainer.
        recipe: The recipe that they were built from.

    Raises:
        ValueError: Names the key, the value and the way out.
    """
    if args.fp16 and args.device.type == "cpu":
        raise ValueError("training.fp16=True needs an accelerator, on CPUs it would have no effect: set training.bf16=true.")
    if args.save_strategy == "best" and args.eval_strategy == "no":
        raise ValueError("training.save_strategy=best needs evaluations to find the best: set training.eval_strategy.")
    for moment in ("logging", "eval", "save"):
        steps, strategy = recipe.training.get(f"{moment}_steps"), getattr(args, f"{moment}_strategy")
        if steps is not None and strategy in ("epoch", "best"):
            raise ValueError(
                f"training.{moment}_steps={steps} has no effect with {moment}_strategy={strategy.value}: set "
                f"training.{moment}_strategy=steps."
            )


def _default(item: Any) -> Any:
    return item.default_factory() if callable(item.default_factory) else item.default


def _choices(key: str) -> tuple[Any, ...]:
    """Name the values of a field whose type says less."""
    if key == "include_num_input_tokens_seen":
        return (False, True, "no", "all", "non_padding")
    if key == "train_sampling_strategy":
        return ("random", "sequential", "group_by_length")
    if key == "dataloader_multiprocessing_context":
        return tuple(multiprocessing.get_all_start_methods())
    if key == "torch_compile_backend":
        return tuple(backend.value.lower() for backend in DynamoBackend if backend is not DynamoBackend.NO)
    return _COMPILE_MODES if key == "torch_compile_mode" else ()


def _check_ranges(training: Mapping[str, Any]) -> None:
    for key, value in training.items():
        # Written so that NaN is in no range.
        if key in _POSITIVE and not 0 < value < math.inf:
            raise ValueError(f"training.{key} must be greater than 0, got {value}.")
        if key in _BELOW_ONE and not 0 <= value < 1:
            raise ValueError(f"training.{key} must be in [0, 1), got {value}.")
        if key in _SEEDS and not 0 <= value < 2**32:
            raise ValueError(f"training.{key} must be in [0, 2^32), got {value}.")
        if key in _LEAST and not _LEAST[key] <= value < math.inf:
            raise ValueError(f"training.{key} must be at least {_LEAST[key]}, got {value}.")


def _check_length_of_run(training: Mapping[str, Any]) -> None:
    steps, epochs = training.get("max_steps", -1), training.get("num_train_epochs", 1)
    if steps != -1 and steps < 1:
        raise ValueError(
            f"training.max_steps must be at least 1, or -1 to train for training.num_train_epochs, got {steps}: no step would "
            "be trained."
        )
    if steps == -1 and not 0 < epochs < math.inf:
        raise ValueError(f"training.num_train_epochs must be greater than 0, got {epochs}: no step would be trained.")


def _check_accelerator(config: Any) -> None:
    if config is None:
        return
    if not isinstance(config, dict) or set(config) - set(_ACCELERATOR_KEYS):
        raise ValueError(
            f"training.accelerator_config must be a mapping of {' and '.join(_ACCELERATOR_KEYS)}, got {config}. How rows are "
            "dealt to processes is fixed, so that each row is taken once."
        )
    if "num_steps" in (config.get("gradient_accumulation_kwargs") or {}):
        raise ValueError("training.accelerator_config may not set num_steps: use training.gradient_accumulation_steps.")


def _check_companions(training: Mapping[str, Any]) -> None:
    for key, others in _NEEDS.items():
        if training.get(key) and not any(training.get(other) for other in others):
            raise ValueError(
                f"training.{key}={training[key]!r} has no effect without training.{others[0]}: set both or neither."
            )
    if "ddp_backend" in training and os.environ.get("WORLD_SIZE", "1") == "1":
        raise ValueError(
            f"training.ddp_backend={training['ddp_backend']} is for several processes, and there is one. Remove it, or start "
            "several with accelerate launch."
        )
    for key in ("torch_compile_backend", "torch_compile_mode"):
        if key in training and training.get("torch_compile") is False:
            raise ValueError(
                f"training.{key}={training[key]!r} would compile the model, and training.torch_compile=False forbids it."
            )
    backend = training.get("torch_compile_backend", "inductor")
    if "torch_compile_mode" in training and backend != "inductor":
        raise ValueError(
            f"training.torch_compile_mode={training['torch_compile_mode']} needs the backend inductor, not {backend}."
        )


def _check_optimization_settings(training: Mapping[str, Any]) -> None:
    for part in _parts(training.get("optim_args")):
        if part.count("=") != 1:
            raise ValueError(f"training.optim_args must be of the form name=value,name=value, got {training['optim_args']!r}.")
    kind = SchedulerType(training.get("lr_scheduler_type", "linear")).value
    for key, without in (("warmup_steps", _WITHOUT_WARMUP), ("lr_scheduler_kwargs", _WITHOUT_KWARGS)):
        if training.get(key) and kind in without:
            raise ValueError(f"training.{key}={training[key]} has no effect with lr_scheduler_type={kind}: remove it.")


def _check_scoring(recipe: Recipe, training: Mapping[str, Any]) -> None:
    problem = recipe.model.problem_type
    if training.get("label_smoothing_factor") and problem in ("regression", "multi_label_classification"):
        raise ValueError(
            f"training.label_smoothing_factor={training['label_smoothing_factor']} is not supported with "
            f"model.problem_type={problem}, because it is defined for one class out of several. Remove it."
        )
    if not recipe.has_split("validation"):
        for key in ("eval_strategy", "eval_on_start", "load_best_model_at_end"):
            if training.get(key) not in (None, False, "no"):
                raise ValueError(
                    f"training.{key}={training[key]} needs a validation split: set data.validation_file, data.validation_split "
                    "or data.validation_fraction."
                )
    metric = training.get("metric_for_best_model")
    available = ("loss",) if training.get("prediction_loss_only") else (*_possible_metrics(recipe), "loss")
    if metric is not None and metric.removeprefix("eval_") not in available:
        raise ValueError(f"training.metric_for_best_model={metric!r} is not measured, there are: {', '.join(available)}.")


def _possible_metrics(recipe: Recipe) -> tuple[str, ...]:
    task = recipe.model.task
    if task == "text2text-generation":
        return text_metric_names(recipe.data.metric)
    if task == "token-classification":  # the tags decide
        return tuple(dict.fromkeys((*SpanMetric.names, *SingleLabelMetric.names)))
    return evaluation_for(task, problem_type=recipe.model.problem_type).metric_names


def _check_that_it_reads(
    args: TrainingArguments, recipe: Recipe, model: torch.nn.Module, found: tuple[type, dict[str, Any]]
) -> None:
    """Refuse settings without which the optimizer would be the same."""
    defaults = {item.name: _default(item) for item in fields(args)}
    without = {
        f"training.{key}={recipe.training[key]}": _changed(args, key, defaults[key])
        for key in _OF_THE_OPTIMIZER[1:]
        if recipe.training.get(key) not in (None, defaults[key])
    }
    parts = _parts(args.optim_args)
    for part in parts:
        others = ",".join(other for other in parts if other != part)
        without[f"training.optim_args={part}"] = _changed(args, "optim_args", others)
    for setting, changed in without.items():
        if _optimizer_or_none(changed, model) == found:
            raise ValueError(f"{setting} has no effect with optim={args.optim.value}: remove it.")


def _optimizer_or_none(args: TrainingArguments, model: torch.nn.Module) -> tuple[type, dict[str, Any]] | None:
    try:
        return Trainer.get_optimizer_cls_and_kwargs(args, model)
    except ValueError:
        return None


def _parts(optim_args: str | None) -> list[str]:
    return [part for part in (optim_args or "").replace(" ", "").split(",") if part]


def _changed(args: TrainingArguments, key: str, value: Any) -> TrainingArguments:
    changed = copy.copy(args)
    setattr(changed, key, value)
    return changed


def _as_set(recipe: Recipe, keys: Sequence[str], first: str) -> str:
    """Write the settings of a recipe as they could be written on the command line; the first one in any case."""
    values = {keys[0]: first} | {key: recipe.training[key] for key in keys[1:] if recipe.training.get(key) is not None}
    return ", ".join(f"training.{key}={value}" for key, value in values.items())
