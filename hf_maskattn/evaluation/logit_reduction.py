"""From logits to predictions, on the device and batch by batch, so that evaluation never holds all logits in memory."""

import torch


def most_likely(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Take the class with the highest logit: `[..., num_labels]` -> `[...]`, int."""
    return logits.argmax(dim=-1)


def likely_labels(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Take every label with a probability above one half: `[B, num_labels]` -> `[B, num_labels]`, 0 or 1."""
    return (logits > 0).long()


def numbers(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Take regression outputs as they are, in fp32 whatever the training precision."""
    return logits.float()


def generated_ids(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Take the ids that `generate()` wrote as they are: `[B, T]` -> `[B, T]`.

    Raises:
        ValueError: If they are logits, because nothing was generated.
    """
    if not isinstance(ids, torch.Tensor) or ids.is_floating_point():
        raise ValueError("Texts are scored as they are generated: set training.predict_with_generate: true.")
    return ids
