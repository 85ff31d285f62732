"""Defaults of the group `training`: evaluate and save every epoch (a stream: every 500 steps), keep the best checkpoint."""

import math
import os
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import Seq2SeqTrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from hf_maskattn.checkpoints.checkpoints import write_atomically
from hf_maskattn.data.files import names_vector_file
from hf_maskattn.data.loading import BUILT_IN
from hf_maskattn.data.tokenizers import KEEP_EVERY_CHARACTER, KINDS
from hf_maskattn.metrics.task_metrics import LOWER_IS_BETTER, TaskEvaluation
from hf_maskattn.recipes.arguments import (
    FROM_SCRATCH,
    ONLY_FOR_DISTILLATION,
    ONLY_FOR_STREAMS,
    OWN_TRAINING_KEYS,
    default_epochs,
)
from hf_maskattn.recipes.fields import ONLY_FOR, config_fields, settable_fields
from hf_maskattn.recipes.recipe import Recipe, load_recipe
from hf_maskattn.recipes.teacher_rules import resolve_teacher
from hf_maskattn.recipes.training_rules import (
    WITHOUT_WARMUP,
    check_arguments,
    check_evaluations,
    check_optimization,
    check_training,
    check_warmup,
    replace_arguments,
    steps_per_epoch,
)
from hf_maskattn.tasks import TASKS

_STEPS = 500
"""Evaluate and save a stream this often. Trainer saves every 500 steps too, but evaluates whenever it logs."""


def resolved_training(recipe: Recipe) -> dict[str, Any]:
    """Add the defaults of the group `training` to the fields that a recipe sets.

    Returns:
        The fields of `TrainingArguments` that are not left at the defaults of transformers, and the own keys that are set.
    """
    training, unit = recipe.training, "steps" if recipe.data.streaming else "epoch"
    resolved = {
        "output_dir": f"runs/{recipe.name}",
        # A stream is shuffled by itself (data.shuffle_buffer), and the lengths of its rows are not known.
        "train_sampling_strategy": "random" if recipe.data.streaming else "group_by_length",
        "report_to": "none",
        "save_total_limit": 1 + (training.get("average_checkpoints") or 1),  # the best one, and the last ones
        **_optimization_defaults(recipe),
        **scoring_defaults(recipe),
        **_schedule(training, recipe.has_split("validation"), unit),
        **training,
    }
    if "logging_strategy" not in training and "logging_steps" not in training:
        resolved["logging_strategy"] = unit
    if resolved.get("keep_checkpoints") is None:
        resolved["keep_checkpoints"] = "all" if "save_total_limit" in training else "best_and_last"
    if "load_best_model_at_end" not in training:
        resolved["load_best_model_at_end"] = resolved["eval_strategy"] != "no" and resolved["save_strategy"] != "no"
    return resolved


def _optimization_defaults(recipe: Recipe) -> dict[str, Any]:
    if recipe.model.pretrained is not None:
        return {}
    has_warmup = recipe.training.get("lr_scheduler_type", "linear") not in WITHOUT_WARMUP
    return FROM_SCRATCH if has_warmup else {**FROM_SCRATCH, "warmup_steps": 0}


def complete_schedule(args: Seq2SeqTrainingArguments, recipe: Recipe, num_rows: int) -> Seq2SeqTrainingArguments:
    """Set the default number of epochs, which depends on the number of rows of the train split, and check the warmup.

    Returns:
        A copy of the arguments: a model from scratch is trained for 10 epochs, or for more until it has 500 steps, unless the
        recipe sets the number of epochs or steps.

    Raises:
        ValueError: If the warmup is longer than the training, or training ends before the first evaluation.
    """
    steps = steps_per_epoch(args, num_rows)
    if args.max_steps > 0:
        check_evaluations(args, recipe, args.max_steps, args.max_steps / steps)
        return args
    if recipe.model.pretrained is None and "num_train_epochs" not in recipe.training:
        args = replace_arguments(args, num_train_epochs=default_epochs(steps))
    num_steps = math.ceil(args.num_train_epochs * steps)
    check_warmup(args, num_steps)
    check_evaluations(args, recipe, num_steps, args.num_train_epochs)
    return args


def scoring_defaults(recipe: Recipe) -> dict[str, Any]:
    """Return the defaults that evaluation needs: models that generate text are scored on the text that they generate."""
    if not TASKS[recipe.model.task].generates:
        return {}
    return {"predict_with_generate": not recipe.training.get("prediction_loss_only", False)}


def _schedule(training: dict[str, Any], has_validation: bool, unit: str) -> dict[str, Any]:
    """Evaluate and save at the same steps, as `load_best_model_at_end` requires."""
    evaluate = training.get("eval_strategy")
    save = training.get("save_strategy")
    if evaluate is None:
        evaluate = save if save in ("steps", "epoch") else unit
        evaluate = evaluate if has_validation else "no"
    if save is None:
        save = evaluate if evaluate != "no" else unit
    schedule = {"eval_strategy": evaluate, "save_strategy": save}
    steps = training.get("eval_steps") or training.get("save_steps") or (_STEPS if unit == "steps" else None)
    if evaluate == save == "steps" and steps:
        schedule |= {"eval_steps": steps, "save_steps": steps}
    return schedule


def training_arguments(
    recipe: Recipe, arguments_class: type[Seq2SeqTrainingArguments] = Seq2SeqTrainingArguments, **fields: Any
) -> Seq2SeqTrainingArguments:
    """Build the arguments of the Trainer.

    Args:
        recipe: The recipe.
        arguments_class: Class of the arguments.
        **fields: Fields that this class adds.

    Returns:
        The arguments. `select_best_metric` completes them when the labels of the data are known.

    Raises:
        ValueError: If a field has no effect, is not supported for the task, or contradicts another one.
        ImportError: If a package that the run reports to, or that the optimizer needs, is not installed.
    """
    check_training(recipe)
    settings = {key: value for key, value in resolved_training(recipe).items() if key not in OWN_TRAINING_KEYS}
    if settings["save_strategy"] == "best":
        settings.setdefault("metric_for_best_model", "loss")
    # All parameters are used in every step. DistributedDataParallel need not search the graph for unused ones.
    settings = {"ddp_find_unused_parameters": False, **machine_defaults(), **settings}
    try:
        args = arguments_class(**settings, **fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"training: {str(error).rstrip('.')}.") from error
    _check_reporters(args.report_to)
    check_arguments(args, recipe)
    check_optimization(args, recipe)
    if args.max_steps > 0:
        check_warmup(args, args.max_steps)
        check_evaluations(args, recipe, args.max_steps, None)
    return args


def machine_defaults() -> dict[str, Any]:
    """Return the defaults that depend on the machine. They are not part of the recipe that a run stores.

    Without an accelerator torch warns about pinned memory. Progress bars are for terminals.
    """
    return {"dataloader_pin_memory": torch.accelerator.is_available(), "disable_tqdm": not sys.stderr.isatty()}


def _check_reporters(names: list[str]) -> None:
    try:
        reporters = get_reporting_integration_callbacks(names)
    except ValueError as error:
        raise ValueError(f"training.report_to: {error}") from error
    for reporter in reporters:
        try:
            reporter()
        except RuntimeError as error:
            raise ImportError(f"training.report_to: {error}") from error


def select_best_metric(args: Seq2SeqTrainingArguments, recipe: Recipe, evaluation: TaskEvaluation) -> Seq2SeqTrainingArguments:
    """Set, in a copy of the arguments, the metric that the best checkpoint is selected by, unless the recipe sets it.

    Raises:
        ValueError: If the recipe sets a metric that is not computed.
    """
    available = ("loss",) if args.prediction_loss_only else (*evaluation.metric_names, "loss")
    metric = recipe.training.get("metric_for_best_model") or available[0]
    if metric.removeprefix("eval_") not in available:
        raise ValueError(f"training.metric_for_best_model must be one of {', '.join(available)}, got {metric!r}.")
    if args.metric_for_best_model is None:
        return args
    greater = args.greater_is_better
    if recipe.training.get("greater_is_better") is None:
        greater = metric.removeprefix("eval_") not in LOWER_IS_BETTER
    return replace_arguments(args, metric_for_best_model=metric, greater_is_better=greater)


_PATHS = ("train_file", "validation_file", "test_file", "unlabeled_file", "output_dir")
"""Keys whose values are always paths."""

_NAMES_OR_PATHS = (
    *("source", "unlabeled_source", "tokenizer", "pretrained", "embeddings", "teacher.model"),
    *("accelerator_config", "deepspeed", "fsdp_config", "generation_config"),
)
"""Keys whose values are paths if the file or folder exists."""


def resolve_recipe(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Return the groups of a recipe with all defaults, and with absolute paths: the same recipe in any directory."""
    task = recipe.model.task
    model = asdict(recipe.model)
    config = model.pop("config")
    if recipe.model.embeddings is None or names_vector_file(recipe.model.embeddings):
        del model["embeddings_kind"]
    if recipe.model.pretrained is None:
        defaults = TASKS[task].config_class.load()()
        names = [name for name in config_fields(task) if name in settable_fields("model", [task])]
        config = {name: config.get(name, getattr(defaults, name)) for name in names}
    data = asdict(recipe.data)
    if data["tokenizer"] not in KINDS:
        del data["vocab_size"], data["min_frequency"], data["lowercase"]
    elif data["tokenizer"] not in KEEP_EVERY_CHARACTER:
        data["min_frequency"] = recipe.min_frequency
    if not recipe.data.streaming:
        for key in ONLY_FOR_STREAMS:
            del data[key]
    data["label_column"] = recipe.label_column
    data["unknown_word_dropout"] = recipe.unknown_word_dropout
    groups = {"model": {**model, **config}, "data": data, "training": resolved_training(recipe)}
    for (group, key), tasks in ONLY_FOR.items():
        if task not in tasks:
            groups[group].pop(key, None)
    if recipe.teacher is None:
        for key in ONLY_FOR_DISTILLATION:
            data.pop(key, None)
    else:
        groups["teacher"] = resolve_teacher(recipe.teacher, task, recipe.model.problem_type)
        if recipe.data.unlabeled_source is None:
            data.pop("unlabeled_split", None)
    return absolute_paths(groups)


def absolute_paths(groups: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the groups of a recipe with absolute paths, which make the same recipe in any directory."""
    return {
        group: {key: _absolute(_path_key(group, key), value) for key, value in values.items()}
        for group, values in groups.items()
    }


def stated_groups(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Return the groups of a recipe, but `tuning`, with what it states alone, and with absolute paths.

    Defaults that depend on the data stay open.
    """
    groups: dict[str, Any] = {"model": recipe.model, "data": recipe.data}
    if recipe.teacher is not None:
        groups["teacher"] = recipe.teacher
    stated = {
        group: {
            item.name: getattr(values, item.name)
            for item in fields(values)
            if item.name != "config" and getattr(values, item.name) != item.default
        }
        for group, values in groups.items()
    }
    stated["model"] |= recipe.model.config
    return absolute_paths({**stated, "training": recipe.training})


def _path_key(group: str, key: str) -> str:
    """Return the key as `_NAMES_OR_PATHS` lists it: `model` is the name of a group too."""
    return f"{group}.{key}" if group == "teacher" else key


def _absolute(key: str, value: Any) -> Any:
    is_path = isinstance(value, str) and (
        key in _PATHS or (key in _NAMES_OR_PATHS and value not in BUILT_IN and value not in KINDS and Path(value).exists())
    )
    return os.path.abspath(value) if is_path else value


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Save a recipe with all defaults, as YAML that `load_recipe` reads."""
    write_atomically(path, yaml.safe_dump(resolve_recipe(recipe), sort_keys=False, allow_unicode=True))


_EARLIER_DEFAULTS: dict[str, dict[str, Any]] = {
    "data": {"min_frequency": 1, "unknown_word_dropout": 0.0},
    "training": {
        "learning_rate": 5e-5,
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "per_device_train_batch_size": 8,
        "num_train_epochs": 3,
    },
}
"""Values that models from scratch were trained with before version 0.2, which did not store them."""


def resumed_recipe(recipe: Recipe, stored: Path) -> Recipe:
    """Return a recipe with the defaults of the run that it resumes, which has stored its `recipe.yaml`.

    Keys that it does not set have the values of the run if their defaults have changed or depend on the data.
    """
    run = load_recipe(stored)
    data = {
        key: earlier if (value := getattr(run.data, key)) is None else value
        for key, earlier in _EARLIER_DEFAULTS["data"].items()
        if getattr(recipe.data, key) is None
    }
    training = {}
    if recipe.model.pretrained is None:
        training = {key: run.training.get(key, earlier) for key, earlier in _EARLIER_DEFAULTS["training"].items()}
    return replace(recipe, data=replace(recipe.data, **data), training={**training, **recipe.training})


_UNSET = "not set"
_WITHOUT_EFFECT_ON_MODEL = ("output_dir", "keep_checkpoints", "name")


def changed_keys(recipe: Recipe, stored: Path) -> dict[str, tuple[Any, Any]]:
    """Compare a recipe with the stored `recipe.yaml` that a run was started with.

    Returns:
        Old and new value of each key that differs, by "group.key", but keys that have no effect on the model. A path is
        unchanged if it is the same, or the same relative to the folder of the run: a project may be moved or mounted elsewhere.
    """
    old = resolve_recipe(resumed_recipe(load_recipe(stored), stored))
    new = resolve_recipe(resumed_recipe(recipe, stored))
    old_folder = old["training"]["output_dir"]
    changes = {}
    for group in new | old:
        before_values, after_values = old.get(group, {}), new.get(group, {})
        for key in after_values | before_values:
            before, after = before_values.get(key, _UNSET), after_values.get(key, _UNSET)
            is_path = _path_key(group, key) in (*_PATHS, *_NAMES_OR_PATHS)
            if is_path and isinstance(after, str) and before == os.path.abspath(after):  # it existed when the run started
                continue
            is_moved = is_path and _relocate(before, old_folder, stored.parent) == after
            if before != after and key not in _WITHOUT_EFFECT_ON_MODEL and not is_moved:
                changes[f"{group}.{key}"] = before, after
    return changes


def _relocate(value: Any, old_folder: str, folder: Path) -> Any:
    """Return the path that relates to `folder` as an absolute path relates to `old_folder`."""
    if not (isinstance(value, str) and os.path.isabs(value)):
        return value
    return os.path.abspath(folder / os.path.relpath(value, old_folder))
