"""Losses summed over the labels that exist and divided by their number, of the whole step if Trainer passes it."""

from collections.abc import Callable

import torch
from torch import nn
from transformers.loss.loss_utils import fixed_cross_entropy

from .masking import at_least_float32, check_values

IGNORED = -100


def classification_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    mask: torch.Tensor | None = None,
    name: str = "labels",
) -> torch.Tensor:
    """Average the cross entropy over all labels that are not -100; 0 if there is none.

    Args:
        logits: `[..., C]`.
        labels: `[...]`, int, 0..C-1 or -100.
        num_items_in_batch: What to divide by instead of the number of labels.
        mask: `[...]`, bool, True = token; labels at padding are not read.
        name: Name of the labels in messages.

    Raises:
        ValueError: If the shapes do not fit or a label is neither -100 nor in 0..C-1.
    """
    labels = validate_labels(labels, logits, mask, name)
    count = count_labels(labels, num_items_in_batch)
    return fixed_cross_entropy(at_least_float32(logits).flatten(0, -2), labels.flatten(), count)


def validate_labels(
    labels: torch.Tensor, logits: torch.Tensor, mask: torch.Tensor | None = None, name: str = "labels"
) -> torch.Tensor:
    """Validate that there is a class for each logit that has one.

    Args:
        labels: `[...]`, int, 0..C-1 or -100.
        logits: `[..., C]`.
        mask: `[...]`, bool, True = token; labels at padding are not read.
        name: Name of the labels in messages.

    Returns:
        The labels, int64, on the device of the logits, -100 at padding.

    Raises:
        ValueError: If the shapes do not fit or a label is neither -100 nor in 0..C-1.
    """
    classes = logits.shape[-1]
    labels = labels.to(logits.device)
    if labels.shape != logits.shape[:-1]:
        raise ValueError(f"`{name}` must have shape {list(logits.shape[:-1])}, got {list(labels.shape)}.")
    if labels.is_floating_point():
        raise ValueError(f"`{name}` must have an integer dtype, got {labels.dtype}. Convert them with `.long()`.")
    if mask is not None:
        labels = labels.masked_fill(~mask.to(labels.device), IGNORED)
    is_valid = (labels == IGNORED) | ((labels >= 0) & (labels < classes))
    check_values(
        is_valid,
        lambda: (
            f"`{name}` must be in [0, {classes - 1}], the classes of the model, or {IGNORED} where there is none, got "
            f"{labels[~is_valid][0].item()}."
        ),
        f"{name} holds a class outside of 0..{classes - 1}",
    )
    return labels.long()


def count_labels(labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None) -> torch.Tensor:
    """Return `num_items_in_batch` or the number of labels that are not -100, at least 1, to divide a sum over labels by."""
    count = (labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
    return _at_least_one(count, labels.device)


def elementwise_loss(
    problem_type: str,
    logits: torch.Tensor,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Average the squared error or the binary cross entropy over all numbers of `labels`.

    Args:
        problem_type: "regression" or "multi_label_classification".
        logits: `[B, C]`.
        labels: `[B, C]`, or `[B]` if C is 1: numbers, or 0 and 1.
        num_items_in_batch: What to divide by instead of the number of labels.

    Raises:
        ValueError: If `problem_type` is unknown or there is not one label for each logit.
    """
    losses: dict[str, Callable[..., torch.Tensor]] = {
        "regression": nn.functional.mse_loss,
        "multi_label_classification": nn.functional.binary_cross_entropy_with_logits,
    }
    if problem_type not in losses:
        raise ValueError(f"problem_type must be one of {['single_label_classification', *losses]}, got {problem_type!r}.")
    if labels.shape != logits.shape and not (logits.shape[1] == 1 and labels.shape == logits.shape[:1]):
        raise ValueError(
            f"`labels` must have shape {list(logits.shape)} for problem_type={problem_type!r}, one number for each logit, got "
            f"{list(labels.shape)}."
        )
    logits = at_least_float32(logits)
    labels = labels.to(logits.device, logits.dtype).view_as(logits)
    total = losses[problem_type](logits, labels, reduction="sum")
    return total / _at_least_one(labels.numel() if num_items_in_batch is None else num_items_in_batch, logits.device)


def _at_least_one(count: torch.Tensor | int, device: torch.device) -> torch.Tensor:
    """Keep the loss of a step without any label at 0, where dividing by their number would make it NaN."""
    return torch.as_tensor(count, device=device).clamp(min=1)
