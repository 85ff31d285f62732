"""Checks of the group `training` of a recipe: settings that have no effect here, or that would fail after hours of training."""

import copy
import math
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from accelerate.utils import DynamoBackend
from transformers import SchedulerType, Seq2SeqTrainingArguments, Trainer, get_scheduler

from hf_maskattn.recipes.arguments import OWN_TRAINING_KEYS
from hf_maskattn.recipes.evaluation_rules import SELECTED_BY_EVALUATIONS, check_needed_evaluations
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.tasks import TASKS

_ALL_ROWS_AT_ONCE = "metrics are computed from all rows of a split at once"
_LAUNCHER = "the launcher shards the model. Use accelerate launch --config_file with a file as in configs/accelerate"
_LIGER = "Liger kernels replace layers of transformers, which recurrent models do not have"

FIXED = {
    "batch_eval_metrics": _ALL_ROWS_AT_ONCE,
    "eval_do_concat_batches": _ALL_ROWS_AT_ONCE,
    "eval_use_gather_object": "predictions are gathered as tensors",
    "include_for_metrics": "it is set from the metric of the task",
    "label_names": "encoded rows always have the labels in the column `labels`",
    "length_column_name": "rows have no column with their length, which is the number of tokens",
    "remove_unused_columns": "encoded rows only have columns that the model uses",
    "debug": "underflow_overflow does not support the bool masks of these models, and tpu_metrics_debug is for TPUs",
    "sortish_sampler": "Trainer ignores it. Use training.train_sampling_strategy=group_by_length",
    "generation_config": (
        "it is set from the tokenizer and data.max_target_length. Use training.generation_max_length and "
        "training.generation_num_beams"
    ),
    "use_cache": "training uses no cache. Pass it to the model: generate(use_cache=...)",
    "use_liger_kernel": _LIGER,
    "liger_kernel_config": _LIGER,
    "enable_jit_checkpoint": "a run stopped by SIGTERM would count as finished. Ctrl-C (SIGINT) saves a checkpoint",
    "save_on_each_node": "one process writes the folder of a run, which all nodes must share",
    "fsdp": _LAUNCHER,
    "fsdp_config": _LAUNCHER,
    "deepspeed": _LAUNCHER,
    "parallelism_config": _LAUNCHER,
}
"""Fields of `TrainingArguments` that must keep their default, with the reason."""

_ACCELERATOR_KEYS = ("non_blocking", "gradient_accumulation_kwargs")
"""Supported keys of `training.accelerator_config`. The others change which rows each process gets: see training/samplers.py."""

_MINIMUMS = {
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
    "gradient_checkpointing_kwargs": ("gradient_checkpointing", "activation_checkpointing"),
    "dataloader_persistent_workers": ("dataloader_num_workers",),
    "dataloader_prefetch_factor": ("dataloader_num_workers",),
    "dataloader_multiprocessing_context": ("dataloader_num_workers",),
}
"""Fields that have no effect unless one of the fields listed with them is set."""

_OPTIMIZER_FIELDS = ("optim", "optim_args", "optim_target_modules", "adam_beta1", "adam_beta2", "adam_epsilon")
_ASSUMED_STEPS = 100
"""Number of steps to check a schedule with if the number of rows determines it."""

WITHOUT_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")
"""Schedules that ignore `warmup_steps`."""

_WITHOUT_KWARGS = ("constant", "constant_with_warmup")

_START_METHODS = ("fork", "spawn", "forkserver")
_CHOICES: dict[str, tuple[Any, ...]] = {
    "include_num_input_tokens_seen": (False, True, "no", "all", "non_padding"),
    "train_sampling_strategy": ("random", "sequential", "group_by_length"),
    # Other packages register further ones.
    "dataloader_multiprocessing_context": tuple(
        method for method in _START_METHODS if method in multiprocessing.get_all_start_methods()
    ),
    "torch_compile_backend": tuple(backend.value.lower() for backend in DynamoBackend if backend is not DynamoBackend.NO),
    "torch_compile_mode": ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
}
"""Choices of fields whose types do not list them."""


def check_training(recipe: Recipe) -> None:
    """Check that each field of the group has an effect, is supported for the task, and cannot fail later.

    Raises:
        ValueError: If a field is not. The message has its name, its value and a way out.
    """
    training = {key: value for key, value in recipe.training.items() if value is not None and key not in OWN_TRAINING_KEYS}
    defaults = {item.name: item for item in fields(Seq2SeqTrainingArguments)}
    for key, reason in FIXED.items():
        if key in training and training[key] != _default(defaults[key]):
            raise ValueError(f"training.{key}={training[key]!r} is not supported, because {reason}. Remove it.")
    for key, value in training.items():
        choices = _CHOICES.get(key) or defaults[key].metadata.get("choices")
        if choices and value not in choices:
            raise ValueError(f"training.{key} must be one of {', '.join(map(str, choices))}, got {value!r}.")
    _check_ranges(training)
    _check_length_of_run(training)
    _check_accelerator(training.get("accelerator_config"))
    _check_dependencies(training)
    _check_optimization_settings(training)
    _check_scoring(recipe, training)
    if recipe.training.get("class_weights") is not None:
        _check_class_weights(recipe)
    if recipe.training.get("rdrop_alpha"):
        _check_rdrop(recipe)


def check_optimization(args: Seq2SeqTrainingArguments, recipe: Recipe) -> None:
    """Check that the optimizer and the schedule can be built, by building both for a model with one weight.

    Raises:
        ValueError: If the optimizer or the schedule rejects a setting or ignores it.
        ImportError: If the package of the optimizer is not installed.
    """
    model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False))
    if args.optim_target_modules is not None:
        args = replace_arguments(args, optim_target_modules="all-linear")  # this model has other layers
    try:
        optimizer_class, settings = Trainer.get_optimizer_cls_and_kwargs(args, model)
    except ImportError as error:
        raise ImportError(f"training.optim={args.optim.value}: {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{_overrides(recipe, _OPTIMIZER_FIELDS, args.optim.value)}: {error}.") from error
    _check_optimizer_settings(args, recipe, model, (optimizer_class, settings))
    if not issubclass(optimizer_class, torch.optim.Optimizer) or settings.keys() & {"model", "optimizer_dict"}:
        return  # it needs the layers of the real model
    try:
        optimizer = optimizer_class(settings.pop("params", model.parameters()), **settings)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{_overrides(recipe, _OPTIMIZER_FIELDS, args.optim.value)}: {error}.") from error
    steps = args.max_steps if args.max_steps > 0 else _ASSUMED_STEPS
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
            f"{_overrides(recipe, names, args.lr_scheduler_type.value)}: {error}. Set arguments of a schedule with "
            "training.lr_scheduler_kwargs={name: value}."
        ) from error


def steps_per_epoch(args: Seq2SeqTrainingArguments, num_rows: int) -> int:
    """Return the number of optimizer steps of an epoch over `num_rows` rows, as Trainer counts them."""
    rows_per_batch = args.train_batch_size * args.world_size
    batches = num_rows // rows_per_batch if args.dataloader_drop_last else math.ceil(num_rows / rows_per_batch)
    return max(1, math.ceil(batches / args.gradient_accumulation_steps))


def check_warmup(args: Seq2SeqTrainingArguments, num_steps: int) -> None:
    """Check that the learning rate reaches its value.

    Raises:
        ValueError: If the warmup is longer than the run of `num_steps` steps.
    """
    warmup = args.get_warmup_steps(num_steps)
    if warmup > num_steps:
        raise ValueError(
            f"training.warmup_steps must be at most {num_steps}, the number of steps of this run, got {warmup}. Lower it, use "
            "training.warmup_ratio=0.1 instead, or train longer with training.num_train_epochs."
        )


def check_arguments(args: Seq2SeqTrainingArguments, recipe: Recipe) -> None:
    """Check fields whose effect depends on the device, or on when the run logs, evaluates and saves.

    Raises:
        ValueError: If a field has no effect. The message has its name, its value and a way out.
    """
    if args.fp16 and args.device.type == "cpu":
        raise ValueError("training.fp16=true has no effect on CPUs. Use training.bf16=true.")
    if any(recipe.training.get(key) is not None for key in SELECTED_BY_EVALUATIONS):
        check_needed_evaluations(args, recipe)
    if args.save_strategy == "best" and args.eval_strategy == "no":
        raise ValueError("training.save_strategy=best has no effect without evaluation. Set training.eval_strategy.")
    for event in ("logging", "eval", "save"):
        steps, strategy = recipe.training.get(f"{event}_steps"), getattr(args, f"{event}_strategy")
        if steps is not None and strategy in ("epoch", "best"):
            raise ValueError(
                f"training.{event}_steps={steps} has no effect with {event}_strategy={strategy.value}. Set "
                f"training.{event}_strategy=steps."
            )


def check_evaluations(args: Seq2SeqTrainingArguments, recipe: Recipe, num_steps: int, num_epochs: float | None) -> None:
    """Check that a run with early stopping is evaluated; its number of epochs is None if only the steps are known.

    Raises:
        ValueError: If `eval_delay` is not over before the end of the run.
    """
    patience = recipe.training.get("early_stopping_patience")
    if patience is None:
        return
    length, unit = (num_epochs, "epochs") if args.eval_strategy == "epoch" else (num_steps, "steps")
    if length is not None and args.eval_delay > length:
        raise ValueError(
            f"training.early_stopping_patience={patience} needs evaluations, got training.eval_delay={args.eval_delay} in a "
            f"run of {length:g} {unit}. Lower training.eval_delay."
        )


def _other_than_single_labels(recipe: Recipe) -> str | None:
    """Return the setting by which the loss is not the cross entropy of single labels, and why that matters."""
    problem = recipe.model.problem_type
    if problem in ("regression", "multi_label_classification"):
        return f"model.problem_type={problem}, because it is defined for one class out of several"
    return "model.use_crf=true, whose loss is of whole sequences of labels" if recipe.model.config.get("use_crf") else None


def _check_class_weights(recipe: Recipe) -> None:
    weights = recipe.training["class_weights"]
    setting = f"training.class_weights={weights}"
    if recipe.model.problem_type == "regression":
        raise ValueError(f"{setting} is not supported with model.problem_type=regression, which has no classes. Remove it.")
    if recipe.model.config.get("use_crf"):
        raise ValueError(f"{setting} is not supported with model.use_crf=true, whose loss is for whole rows. Remove one.")
    if weights == "balanced" and recipe.data.streaming:
        raise ValueError(
            f"{setting} is not supported with data.streaming=true, because it needs all rows. Set a weight for each label: "
            "training.class_weights={label: weight}."
        )
    for label, weight in weights.items() if isinstance(weights, dict) else ():
        if not 0 < weight < math.inf:
            raise ValueError(f"training.class_weights must be greater than 0, got {weight} for {label}.")


def _check_rdrop(recipe: Recipe) -> None:
    alpha, reason = recipe.training["rdrop_alpha"], _other_than_single_labels(recipe)
    if not 0 < alpha < math.inf:
        raise ValueError(f"training.rdrop_alpha must be 0 or greater, got {alpha}. 1 to 5 is usual.")
    if reason is None and recipe.teacher is not None:
        reason = "a teacher, which has a loss of its own"
    if reason is not None:
        raise ValueError(f"training.rdrop_alpha={alpha} is not supported with {reason}. Remove it.")


def _default(item: Any) -> Any:
    return item.default_factory() if callable(item.default_factory) else item.default


def _check_ranges(training: Mapping[str, Any]) -> None:
    for key, value in training.items():
        # NaN fails all of these comparisons.
        if key in _POSITIVE and not 0 < value < math.inf:
            raise ValueError(f"training.{key} must be greater than 0, got {value}.")
        if key in _BELOW_ONE and not 0 <= value < 1:
            raise ValueError(f"training.{key} must be in [0, 1), got {value}.")
        if key in _SEEDS and not 0 <= value < 2**32:
            raise ValueError(f"training.{key} must be in [0, 2^32), got {value}.")
        if key in _MINIMUMS and not _MINIMUMS[key] <= value < math.inf:
            raise ValueError(f"training.{key} must be at least {_MINIMUMS[key]}, got {value}.")


def _check_length_of_run(training: Mapping[str, Any]) -> None:
    steps, epochs = training.get("max_steps", -1), training.get("num_train_epochs", 1)
    if steps != -1 and steps < 1:
        raise ValueError(f"training.max_steps must be at least 1, or -1 to train for training.num_train_epochs, got {steps}.")
    if steps == -1 and not 0 < epochs < math.inf:
        raise ValueError(f"training.num_train_epochs must be greater than 0, got {epochs}.")


def _check_accelerator(config: Any) -> None:
    if config is None:
        return
    if not isinstance(config, dict) or set(config) - set(_ACCELERATOR_KEYS):
        raise ValueError(
            f"training.accelerator_config must be a mapping with the keys {' and '.join(_ACCELERATOR_KEYS)}, got {config}. "
            "Remove the others, which change how rows are distributed to processes."
        )
    if "num_steps" in (config.get("gradient_accumulation_kwargs") or {}):
        raise ValueError("training.accelerator_config must not set num_steps. Use training.gradient_accumulation_steps.")


def _check_dependencies(training: Mapping[str, Any]) -> None:
    for key, others in _NEEDS.items():
        if training.get(key) and not any(training.get(other) for other in others):
            raise ValueError(
                f"training.{key}={training[key]!r} has no effect without training.{others[0]}. Set both or neither."
            )
    if "ddp_backend" in training and os.environ.get("WORLD_SIZE", "1") == "1":
        raise ValueError(
            f"training.ddp_backend={training['ddp_backend']} has no effect in a single process. Remove it, or start several "
            "processes with accelerate launch."
        )
    for key in ("torch_compile_backend", "torch_compile_mode"):
        if key in training and training.get("torch_compile") is False:
            raise ValueError(
                f"training.{key}={training[key]!r} contradicts training.torch_compile=false, because it compiles the model. "
                "Remove one of them."
            )
    backend = training.get("torch_compile_backend", "inductor")
    if "torch_compile_mode" in training and backend != "inductor":
        raise ValueError(
            f"training.torch_compile_mode={training['torch_compile_mode']} has no effect with the backend {backend}. Use the "
            "backend inductor."
        )


def _check_optimization_settings(training: Mapping[str, Any]) -> None:
    for part in _parts(training.get("optim_args")):
        if part.count("=") != 1:
            raise ValueError(f"training.optim_args must be of the form name=value,name=value, got {training['optim_args']!r}.")
    kind = SchedulerType(training.get("lr_scheduler_type", "linear")).value
    for key, without in (("warmup_steps", WITHOUT_WARMUP), ("lr_scheduler_kwargs", _WITHOUT_KWARGS)):
        if training.get(key) and kind in without:
            raise ValueError(f"training.{key}={training[key]} has no effect with lr_scheduler_type={kind}. Remove it.")


def _check_scoring(recipe: Recipe, training: Mapping[str, Any]) -> None:
    smoothing, reason = training.get("label_smoothing_factor"), _other_than_single_labels(recipe)
    if reason is None and recipe.model.task == "joint-classification":
        reason = "model.task=joint-classification, because Trainer smooths one kind of labels only"
    if smoothing and reason is not None:
        raise ValueError(f"training.label_smoothing_factor={smoothing} is not supported with {reason}. Remove it.")
    if not recipe.has_split("validation"):
        for key in ("eval_strategy", "eval_on_start", "load_best_model_at_end"):
            if training.get(key) not in (None, False, "no"):
                raise ValueError(
                    f"training.{key}={training[key]} has no effect without a validation split. Set data.validation_file, "
                    "data.validation_split or data.validation_fraction."
                )
    metric = training.get("metric_for_best_model")
    names = TASKS[recipe.model.task].metric_names.load()(problem_type=recipe.model.problem_type, metric=recipe.data.metric)
    available = ("loss",) if training.get("prediction_loss_only") else (*names, "loss")
    if metric is not None and metric.removeprefix("eval_") not in available:
        raise ValueError(f"training.metric_for_best_model must be one of {', '.join(available)}, got {metric!r}.")


def _check_optimizer_settings(
    args: Seq2SeqTrainingArguments, recipe: Recipe, model: torch.nn.Module, optimizer: tuple[type, dict[str, Any]]
) -> None:
    """Check that the optimizer would be different without each of its settings."""
    defaults = {item.name: _default(item) for item in fields(args)}
    without = {
        f"training.{key}={recipe.training[key]}": replace_arguments(args, **{key: defaults[key]})
        for key in _OPTIMIZER_FIELDS[1:]
        if recipe.training.get(key) not in (None, defaults[key])
    }
    parts = _parts(args.optim_args)
    for part in parts:
        others = ",".join(other for other in parts if other != part)
        without[f"training.optim_args={part}"] = replace_arguments(args, optim_args=others)
    for setting, changed in without.items():
        if _optimizer_or_none(changed, model) == optimizer:
            raise ValueError(f"{setting} has no effect with optim={args.optim.value}. Remove it.")


def _optimizer_or_none(args: Seq2SeqTrainingArguments, model: torch.nn.Module) -> tuple[type, dict[str, Any]] | None:
    try:
        return Trainer.get_optimizer_cls_and_kwargs(args, model)
    except ValueError:
        return None


def _parts(optim_args: str | None) -> list[str]:
    return [part for part in (optim_args or "").replace(" ", "").split(",") if part]


def replace_arguments(args: Seq2SeqTrainingArguments, **changes: Any) -> Seq2SeqTrainingArguments:
    """Return a copy of Trainer arguments with some fields changed.

    `dataclasses.replace` would run `__post_init__` again, which sets other fields from these.
    """
    changed = copy.copy(args)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


def _overrides(recipe: Recipe, keys: Sequence[str], first: str) -> str:
    """Return settings of a recipe as overrides of the command line, the first one with its value in any case."""
    values = {keys[0]: first} | {key: recipe.training[key] for key in keys[1:] if recipe.training.get(key) is not None}
    return ", ".join(f"training.{key}={value}" for key, value in values.items())
