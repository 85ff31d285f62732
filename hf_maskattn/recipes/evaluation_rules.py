"""Checks of settings that select the model by evaluations: early stopping, and averaged checkpoints."""

from transformers import Seq2SeqTrainingArguments

from hf_maskattn.recipes.recipe import Recipe

_MINIMUMS = {"early_stopping_patience": 1, "average_checkpoints": 2}
_REASONS = {
    "early_stopping_patience": "the last model would be one that had stopped improving",
    "average_checkpoints": "the average is only used if it is better than the best checkpoint",
}


def num_kept_checkpoints(average_checkpoints: int | None) -> int:
    """Return how many checkpoints stay on disk during training: the best one, and the last ones.

    Args:
        average_checkpoints: Number of checkpoints that are averaged at the end.
    """
    return 1 + (average_checkpoints or 1)


def check_needed_evaluations(args: Seq2SeqTrainingArguments, recipe: Recipe) -> None:
    """Check that a run whose model is selected by evaluations has them.

    Args:
        args: The arguments of the Trainer.
        recipe: The recipe that they were built from.

    Raises:
        ValueError: If it has none, a number is too low, or too few checkpoints are kept.
    """
    for key, minimum in _MINIMUMS.items():
        value = recipe.training.get(key)
        if value is not None:
            _check_setting(key, value, minimum, args, recipe)
    count, limit = recipe.training.get("average_checkpoints"), args.save_total_limit
    if count is not None and limit is not None and limit < num_kept_checkpoints(count):
        raise ValueError(
            f"training.save_total_limit must be at least {num_kept_checkpoints(count)} with "
            f"training.average_checkpoints={count} (the best one and the last {count}), got {limit}. Remove it or raise it."
        )


def _check_setting(key: str, value: int, minimum: int, args: Seq2SeqTrainingArguments, recipe: Recipe) -> None:
    setting = f"training.{key}={value}"
    if value < minimum:
        raise ValueError(f"training.{key} must be at least {minimum}, got {value}.")
    if not recipe.has_split("validation"):
        raise ValueError(
            f"{setting} needs a validation split. Set data.validation_file, data.validation_split or data.validation_fraction."
        )
    if args.eval_strategy == "no":
        raise ValueError(f"{setting} needs evaluations during training. Set training.eval_strategy to epoch or steps.")
    if not args.load_best_model_at_end:
        raise ValueError(f"{setting} needs training.load_best_model_at_end=true: {_REASONS[key]}.")


def check_evaluations(args: Seq2SeqTrainingArguments, recipe: Recipe, num_steps: int, num_epochs: float | None) -> None:
    """Check that a run with early stopping is evaluated.

    Args:
        args: The arguments of the Trainer.
        recipe: The recipe that they were built from.
        num_steps: Number of steps of the run.
        num_epochs: Number of epochs of the run. None if only the steps are known.

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
