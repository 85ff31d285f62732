"""Class weights: how much each class counts in the training loss."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from hf_maskattn.model.losses import IGNORED, count_labels
from hf_maskattn.model.masking import at_least_float32
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.training.task_data import TaskData


@dataclass(frozen=True)
class WeightedLoss:
    """Loss of a classifier with class weights, as `compute_loss_func` of Trainer.

    It is the sum over the labels divided by their number in the step, not by the sum of their weights, so that it does not
    depend on how rows are distributed to batches and processes.

    Attributes:
        weights: `[C]`, float32, weight of each class; with several labels per text, weight of the texts that have a label
            (`pos_weight` of `torch.nn.BCEWithLogitsLoss`). None weights all classes equally.
        is_multi_label: Whether a text has several labels.
        label_smoothing: Label smoothing of `torch.nn.functional.cross_entropy`.
    """

    weights: torch.Tensor | None = None
    is_multi_label: bool = False
    label_smoothing: float = 0.0

    def __call__(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Compute the loss.

        Args:
            outputs: Outputs of the model, with `logits` `[..., C]`.
            labels: `[...]`, int, -100 where there is none; or `[B, C]`, float, NaN in rows without labels.
            num_items_in_batch: What to divide by instead of the number of labels.
        """
        logits = at_least_float32(outputs["logits"])
        labels, weights = labels.to(logits.device), None if self.weights is None else self.weights.to(logits)
        if self.is_multi_label:
            is_labeled = ~labels.isnan().any(-1)
            logits, labels = logits[is_labeled], labels[is_labeled].to(logits.dtype)
            total = binary_cross_entropy_with_logits(logits, labels, pos_weight=weights, reduction="sum")
            count = count_labels(labels, labels.numel() if num_items_in_batch is None else num_items_in_batch)
        else:
            total = cross_entropy(
                logits.flatten(0, -2),
                labels.long().flatten(),
                weight=weights,
                ignore_index=IGNORED,
                reduction="sum",
                label_smoothing=self.label_smoothing,
            )
            count = count_labels(labels, num_items_in_batch)
        return total / count


def build_weighted_loss(recipe: Recipe, data: TaskData, label_smoothing: float) -> WeightedLoss:
    """Build the training loss of a recipe with `training.class_weights`.

    Raises:
        ValueError: If a class has no rows in the train split, or the recipe does not name the labels of the data.
    """
    names, declared = data.labels or [], recipe.training["class_weights"]
    is_multi_label = recipe.model.problem_type == "multi_label_classification"
    split: Any = data.splits["train"]
    if isinstance(declared, dict):
        if {*declared} != {*names}:
            different = ", ".join(sorted({*declared} ^ {*names}))
            raise ValueError(
                f"training.class_weights must have a weight for each of {', '.join(names)}, and for nothing else. Correct "
                f"{different}."
            )
        weights = np.array([declared[name] for name in names])
    elif is_multi_label:
        labels = np.array(split["labels"]).reshape(-1, len(names))
        labels = labels[~np.isnan(labels).any(-1)]
        weights = _positive_weights(labels, names)
    else:
        labels = np.concatenate([np.atleast_1d(value) for value in split["labels"] if value != []])
        weights = _balanced_weights(labels[labels != IGNORED], names)
    return WeightedLoss(torch.tensor(weights, dtype=torch.float32), is_multi_label, label_smoothing)


def _balanced_weights(labels: np.ndarray, names: list[str]) -> np.ndarray:
    """Compute n / (k * n_c), as scikit-learn does, for n labels, n_c of them of class c, of k classes."""
    counts = np.bincount(labels.astype(int), minlength=len(names))
    present = {name for name, count in zip(names, counts, strict=True) if count}
    # IOB2 has I-X for entities of several words, which may not occur. No token then has this weight as its own.
    missing = [name for name in names if name not in present and f"B-{name.removeprefix('I-')}" not in present]
    _check_present(missing, "of")
    weights = np.ones(len(names))
    weights[counts > 0] = len(labels) / (len(present) * counts[counts > 0])
    return weights


def _positive_weights(labels: np.ndarray, names: list[str]) -> np.ndarray:
    """Compute (n - n_c) / n_c for n texts, n_c of them with label c."""
    counts = labels.sum(0)
    _check_present([name for name, count in zip(names, counts, strict=True) if count == 0], "with")
    _check_present([name for name, count in zip(names, counts, strict=True) if count == len(labels)], "without")
    return (len(labels) - counts) / counts


def _check_present(missing: list[str], relation: str) -> None:
    if missing:
        raise ValueError(
            f"training.class_weights=balanced needs rows {relation} each label in the train split, got none {relation} "
            f"{', '.join(missing)}. Add rows, correct data.labels, or set training.class_weights to a weight for each label."
        )
