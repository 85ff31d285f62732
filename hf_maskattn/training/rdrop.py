"""R-Drop: each row is trained on twice, with different dropout, and the two predictions are drawn to each other.

Source:
    Liang et al. 2021, R-Drop: Regularized Dropout for Neural Networks (arXiv:2106.14448).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from hf_maskattn.data.collators import RowSeededCollator
from hf_maskattn.model.losses import IGNORED, count_labels
from hf_maskattn.model.masking import at_least_float32
from hf_maskattn.training.class_weights import WeightedLoss


class RDropCollator(RowSeededCollator):
    """Collates a batch of training that has its rows twice: all of them, and then all of them again.

    Args:
        collator: The collator, which may depend on the epoch.
    """

    def __init__(self, collator: Any):
        self.collator = collator
        self._is_seeded = isinstance(collator, RowSeededCollator)

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch of the collator."""
        if self._is_seeded:
            self.collator.set_epoch(epoch)

    def with_own_epoch(self) -> "RDropCollator":
        """Return a copy whose epoch is set independently."""
        return RDropCollator(self.collator.with_own_epoch() if self._is_seeded else self.collator)

    def for_evaluation(self) -> Any:
        """Return a collator that has each row once."""
        return self.collator.for_evaluation() if self._is_seeded else self.collator

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Any:
        """Collate rows: the outputs of the collator for them and for them again, `[2 B, ...]`."""
        return self.collator([*rows, *rows])


@dataclass(frozen=True)
class RDropLoss:
    """Loss of a batch of `RDropCollator`, as `compute_loss_func` of Trainer.

    For the distributions p and q that the two passes predict for a label, and their losses:

        (loss_p + loss_q + alpha (KL(p || q) + KL(q || p)) / 2) / 2

    averaged over the labels: half of the loss of the paper, so that it has the scale of a loss without R-Drop.

    Attributes:
        alpha: Weight of the divergence.
        loss: Loss of the labels, called as `compute_loss_func` of Trainer. By default the cross entropy.
    """

    alpha: float
    loss: Callable[..., torch.Tensor] = field(default_factory=WeightedLoss)

    def __call__(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Compute the loss.

        Args:
            outputs: Outputs of the model, with `logits` `[2 B, ..., C]`.
            labels: `[2 B, ...]`, int, -100 where there is none.
            num_items_in_batch: What to divide by instead of the number of labels, each of which counts twice.
        """
        loss = self.loss(outputs, labels, num_items_in_batch)
        logits = at_least_float32(outputs["logits"])
        first, second = logits.log_softmax(-1).chunk(2)  # [B, ..., C]
        divergence = ((first.exp() - second.exp()) * (first - second)).sum(-1)  # KL(p || q) + KL(q || p), [B, ...]
        labels = labels.to(logits.device)
        is_labeled = labels.chunk(2)[0] != IGNORED
        return loss + self.alpha / 2 * divergence[is_labeled].sum() / count_labels(labels, num_items_in_batch)
