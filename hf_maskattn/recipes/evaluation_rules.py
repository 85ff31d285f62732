"""Checks of settings that select the model by evaluations: early stopping, and averaged checkpoints."""

import os

from transformers import Seq2SeqTrainingArguments

from hf_maskattn.recipes.recipe import Recipe

_SHARDING = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")

SELECTED_BY_EVALUATIONS = {
    "early_stopping_patience": (1, "the last model would be one that had stopped improving"),
    "average_checkpoints": (2, "the average is only used if it is better than the best checkpoint"),
}
"""Keys of the group `training` that need evaluations: their minimum, and why they need `load_best_model_at_end`."""


def check_needed_evaluations(args: Seq2SeqTrainingArguments, recipe: Recipe) -> None:
    """Check that a run whose model is selected by evaluations has them.

    Raises:
        ValueError: If it has none, a number is too low, too few checkpoints are kept, or sharded weights would be averaged.
    """
    for key, (minimum, reason) in SELECTED_BY_EVALUATIONS.items():
        value = recipe.training.get(key)
        if value is None:
            continue
        setting = f"training.{key}={value}"
        if value < minimum:
            raise ValueError(f"training.{key} must be at least {minimum}, got {value}.")
        if not recipe.has_split("validation"):
            raise ValueError(
                f"{setting} needs a validation split. Set data.validation_file, data.validation_split or "
                "data.validation_fraction."
            )
        if args.eval_strategy == "no":
            raise ValueError(f"{setting} needs evaluations during training. Set training.eval_strategy to epoch or steps.")
        if not args.load_best_model_at_end:
            raise ValueError(f"{setting} needs training.load_best_model_at_end=true: {reason}.")
    count, limit = recipe.training.get("average_checkpoints"), args.save_total_limit
    if count is not None and any(os.environ.get(variable, "").lower() == "true" for variable in _SHARDING):
        raise ValueError(f"training.average_checkpoints={count} is not supported with FSDP or DeepSpeed, which shard weights.")
    if count is not None and limit is not None and limit <= count:
        raise ValueError(
            f"training.save_total_limit must be at least {count + 1} with training.average_checkpoints={count} (the best "
            f"one and the last {count}), got {limit}. Remove it or raise it."
        )
