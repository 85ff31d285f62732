"""What a run does where its recipe does not say: evaluate and save every epoch, keep the best and the last checkpoint.

A stream has no epochs: it does so every so many steps, as Trainer does.
"""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from hf_maskattn.checkpoints.checkpoints import write_atomically
from hf_maskattn.data.loading import BUILT_IN
from hf_maskattn.data.tokenizers import KINDS
from hf_maskattn.metrics.task_metrics import LOWER_IS_BETTER, TaskEvaluation
from hf_maskattn.recipes.arguments import ONLY_FOR, ONLY_FOR_STREAMS, arguments_class, config_class, settable_fields
from hf_maskattn.recipes.recipe import Recipe, load_recipe
from hf_maskattn.recipes.training_rules import check_arguments, check_optimization, check_training

_STEPS = 500
"""As often as Trainer saves. Left to itself, it would evaluate as often as it logs, and refuse where the two do not fit."""

# Every parameter takes part in every step: a search for those that do not would cost a pass over the graph.
_OF_THE_PROCESSES = {"ddp_find_unused_parameters": False}


def resolved_training(recipe: Recipe) -> dict[str, Any]:
    """Fill in the fields of `TrainingArguments` that a recipe leaves open; what it says is never changed.

    Args:
        recipe: The recipe.

    Returns:
        The fields, those of the recipe included.
    """
    training, moment = recipe.training, "steps" if recipe.data.streaming else "epoch"
    filled = {
        "output_dir": f"runs/{recipe.name}",
        # The rows of a stream are not at hand; it shuffles itself (data.shuffle_buffer).
        "train_sampling_strategy": "random" if recipe.data.streaming else "group_by_length",
        "report_to": "none",
        "save_total_limit": 2,
        **scoring_defaults(recipe),
        **_schedule(training, recipe.has_split("validation"), moment),
        **training,
    }
    if "logging_strategy" not in training and "logging_steps" not in training:
        filled["logging_strategy"] = moment
    if "load_best_model_at_end" not in training:
        filled["load_best_model_at_end"] = filled["eval_strategy"] != "no" and filled["save_strategy"] != "no"
    return filled


def scoring_defaults(recipe: Recipe) -> dict[str, Any]:
    """Fill in how a task is scored where its recipe does not say: texts as they are generated."""
    if recipe.model.task != "text2text-generation":
        return {}
    return {"predict_with_generate": not recipe.training.get("prediction_loss_only", False)}


def training_arguments(recipe: Recipe) -> TrainingArguments:
    """Build the arguments of Trainer.

    Args:
        recipe: The recipe.

    Returns:
        The arguments; `choose_metric` completes them once the data is known.

    Raises:
        ValueError: If a setting has no effect, no meaning for the task, or does not go with the others.
        ImportError: If a package that the run is to report to, or that its optimizer comes from, is not installed.
    """
    check_training(recipe)
    settings = resolved_training(recipe)
    if settings["save_strategy"] == "best":
        settings.setdefault("metric_for_best_model", "loss")
    settings = {**_OF_THE_PROCESSES, **with_pinned_memory_where_it_helps(with_bars_on_a_terminal(settings))}
    try:
        args = arguments_class(recipe.model.task)(**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"training: {str(error).rstrip('.')}.") from error
    _check_that_they_are_installed(args.report_to)
    check_arguments(args, recipe)
    check_optimization(args, recipe)
    return args


def _check_that_they_are_installed(names: list[str]) -> None:
    try:
        reporters = get_reporting_integration_callbacks(names)
    except ValueError as error:
        raise ValueError(f"training.report_to: {error}") from error
    for reporter in reporters:
        try:
            reporter()
        except RuntimeError as error:
            raise ImportError(f"training.report_to: {error}") from error


def with_pinned_memory_where_it_helps(settings: dict[str, Any]) -> dict[str, Any]:
    """Pin memory if there is an accelerator, unless the recipe says otherwise: without one, torch warns and does not.

    A property of the machine, not of the run: it is not part of `resolved_training`.
    """
    return {"dataloader_pin_memory": torch.accelerator.is_available(), **settings}


def with_bars_on_a_terminal(settings: dict[str, Any]) -> dict[str, Any]:
    """Show progress bars on a terminal alone, unless the recipe says otherwise; likewise no property of the run."""
    return {"disable_tqdm": not sys.stderr.isatty(), **settings}


def choose_metric(args: TrainingArguments, recipe: Recipe, evaluation: TaskEvaluation) -> None:
    """Tell Trainer by which metric, in which direction, a checkpoint is the best, if the recipe does not.

    Args:
        args: The arguments of Trainer.
        recipe: The recipe.
        evaluation: How the task is evaluated.

    Raises:
        ValueError: If the recipe names a metric that the task does not have.
    """
    available = ("loss",) if args.prediction_loss_only else (*evaluation.metric_names, "loss")
    metric = recipe.training.get("metric_for_best_model") or available[0]
    if metric.removeprefix("eval_") not in available:
        raise ValueError(f"training.metric_for_best_model={metric!r} is not measured, there are: {', '.join(available)}.")
    if args.metric_for_best_model is not None:
        args.metric_for_best_model = metric
        if recipe.training.get("greater_is_better") is None:
            args.greater_is_better = metric.removeprefix("eval_") not in LOWER_IS_BETTER


def _schedule(training: dict[str, Any], has_validation: bool, moment: str) -> dict[str, Any]:
    """Evaluate and save at the same moments, which loading the best model at the end needs."""
    evaluate = training.get("eval_strategy")
    save = training.get("save_strategy")
    if evaluate is None:
        evaluate = save if save in ("steps", "epoch") else moment
        evaluate = evaluate if has_validation else "no"
    if save is None:
        save = evaluate if evaluate != "no" else moment
    schedule = {"eval_strategy": evaluate, "save_strategy": save}
    steps = training.get("eval_steps") or training.get("save_steps") or (_STEPS if moment == "steps" else None)
    if evaluate == save == "steps" and steps:
        schedule |= {"eval_steps": steps, "save_steps": steps}
    return schedule


_MISSING = "nothing"

_FILES = ("train_file", "validation_file", "test_file", "output_dir")
"""Keys whose values are paths in any case."""

_NAMES_OR_PATHS = ("source", "tokenizer", "pretrained", "accelerator_config", "deepspeed", "fsdp_config", "generation_config")
"""Keys whose values are paths where there is such a file or folder, else names on the Hub or something else."""


def resolve_recipe(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Fill in all defaults of a recipe.

    Args:
        recipe: The recipe.

    Returns:
        Its groups, which make the same recipe again when read, from any directory: paths are absolute.
    """
    model = asdict(recipe.model)
    config = model.pop("config")
    if recipe.model.pretrained is None:
        defaults, names = config_class(recipe.model.task)(), settable_fields("model", [recipe.model.task])
        config = {name: config.get(name, getattr(defaults, name)) for name in names if name not in model}
    data = asdict(recipe.data)
    if data["tokenizer"] not in KINDS:
        del data["vocab_size"], data["lowercase"]
    if not recipe.data.streaming:
        for key in ONLY_FOR_STREAMS:
            del data[key]
    data["label_column"] = recipe.label_column
    groups = {"model": {**model, **config}, "data": data, "training": resolved_training(recipe)}
    for (group, key), tasks in ONLY_FOR.items():
        if recipe.model.task not in tasks:
            del groups[group][key]
    return {group: {key: _absolute(key, value) for key, value in values.items()} for group, values in groups.items()}


def _absolute(key: str, value: Any) -> Any:
    is_path = isinstance(value, str) and (
        key in _FILES or (key in _NAMES_OR_PATHS and value not in BUILT_IN and value not in KINDS and Path(value).exists())
    )
    return os.path.abspath(value) if is_path else value


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe with all defaults filled in, as YAML that `load_recipe` reads."""
    write_atomically(path, yaml.safe_dump(resolve_recipe(recipe), sort_keys=False, allow_unicode=True))


def changed_keys(recipe: Recipe, stored: Path) -> dict[str, tuple[Any, Any]]:
    """Compare a recipe with the one that a run was started with.

    Args:
        recipe: The recipe.
        stored: The `recipe.yaml` of the run.

    Returns:
        Old and new value of each key that differs, by "group.key"; `training.output_dir` is left out. A file that lies where
        it lay, or lies there as seen from the folder of the run, is the same: a project may be moved or mounted elsewhere.
    """
    old, new = resolve_recipe(load_recipe(stored)), resolve_recipe(recipe)
    old_folder = old["training"]["output_dir"]
    changes = {}
    for group, values in new.items():
        for key in values | old[group]:
            pair = old[group].get(key, _MISSING), values.get(key, _MISSING)
            is_moved = key in (*_FILES, *_NAMES_OR_PATHS) and _moved(pair[0], old_folder, stored.parent) == pair[1]
            if pair[0] != pair[1] and key != "output_dir" and not is_moved:
                changes[f"{group}.{key}"] = pair
    return changes


def _moved(value: Any, old_folder: str, folder: Path) -> Any:
    """Give the path that lies as seen from `folder` where an absolute path lies as seen from `old_folder`."""
    if not (isinstance(value, str) and os.path.isabs(value)):
        return value
    return os.path.abspath(folder / os.path.relpath(value, old_folder))
