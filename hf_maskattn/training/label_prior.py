"""The loss of a model that has learned nothing but the frequencies of the labels."""

import logging
from typing import TYPE_CHECKING

import numpy as np
from datasets import Dataset

from hf_maskattn.tasks import TASKS

if TYPE_CHECKING:
    from hf_maskattn.training.assembly import Assembly

logger = logging.getLogger(__name__)

_NOTHING_LEARNED = 0.95
"""Ratio of a loss to the loss of the label frequencies, above which the model has learned next to nothing."""

_IGNORED = -100


def prior_loss(labels: np.ndarray, problem_type: str | None, smoothing: float = 0.0) -> float:
    """Return the smallest loss of predictions that do not depend on the input.

    Args:
        labels: For a single label `[N]`, int, where -100 is ignored; for several labels `[N, C]`, 0 or 1; for regression `[N]`,
            float.
        problem_type: `problem_type` of the configuration. None for a single-label task.
        smoothing: Label smoothing of a single-label task.

    Returns:
        The entropy of the labels in nats (for several labels the mean over them), or the variance of the numbers.
    """
    if problem_type == "regression":
        return float(labels.var())
    if problem_type == "multi_label_classification":
        frequencies = np.stack([labels.mean(0), 1 - labels.mean(0)])  # [2, C]
        return float(_entropy(frequencies).mean())
    counts = np.bincount(labels[labels != _IGNORED])
    frequencies = (1 - smoothing) * counts / counts.sum() + smoothing / len(counts)  # [C]
    return float(_entropy(frequencies))


def _entropy(frequencies: np.ndarray) -> np.ndarray:
    """Return the entropy over the first axis."""
    logarithms = np.log(frequencies, where=frequencies > 0, out=np.zeros_like(frequencies))
    return -(frequencies * logarithms).sum(0)


def warn_of_prior_loss(assembly: "Assembly") -> None:
    """Log a warning if the training loss of a classifier ended where the frequencies of the labels alone would end.

    Args:
        assembly: The Trainer after training, and its data.
    """
    trainer, split, recipe = assembly.trainer, assembly.data.splits["train"], assembly.data.encoder.recipe
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if TASKS[recipe.model.task].label_column is None or not isinstance(split, Dataset) or not losses:
        return
    labels = np.concatenate([np.atleast_1d(value) for value in split["labels"] if value != []])
    if recipe.model.problem_type == "multi_label_classification":
        labels = labels.reshape(split.num_rows, -1)
    prior = prior_loss(labels, recipe.model.problem_type, trainer.args.label_smoothing_factor)
    if prior > 0 and losses[-1] > _NOTHING_LEARNED * prior:
        logger.warning(
            f"The training loss ended at {losses[-1]:.3f}, where predicting the frequencies of the labels for any text gives "
            f"{prior:.3f}: the model has learned next to nothing. Try another training.learning_rate (here "
            f"{trainer.args.learning_rate:g}; 2e-3 is usual for a model from scratch) or more training.num_train_epochs, and "
            "check that the labels of the data belong to its texts."
        )
