"""What a run does where its recipe does not say: evaluate and save every epoch, keep the best and the last checkpoint.

A stream has no epochs: it does so every so many steps, as Trainer does.
"""

import sys
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from hf_maskattn.evaluation.task_evaluation import LOWER_IS_BETTER, TaskEvaluation
from hf_maskattn.recipes.arguments import arguments_class
from hf_maskattn.recipes.recipe import Recipe
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
