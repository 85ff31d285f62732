"""Additive attention, method 1: scores for the whole padded batch, pads removed before the softmax."""

import torch

from .softmax import drop_tokens, masked_softmax
from .tanh import tanh


def eager_attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    energy: torch.Tensor,
    mask: torch.Tensor,
    dropout: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend additively over a padded batch, all scores at once.

    Args:
        queries: `[B, Tq, A]`, projected queries W q.
        keys: `[B, Tk, A]`, projected memory U h.
        values: `[B, Tk, H]`, the memory h, finite at pads.
        energy: `[heads, A / heads]`, the vector v of each head.
        mask: `[B, Tk]`, bool, True = real.
        dropout: Chance of each score to be dropped before the softmax.

    Returns:
        Context `[B, Tq, H]`, in which head k holds the k-th slice of H, and weights `[B, heads, Tq, Tk]`.

    Numerics:
        Keeps `[B, Tq, Tk, A]` for the gradient.

    Source:
        Bahdanau et al. 2015 (arXiv:1409.0473), section 3.1 and appendix A.1.2: a(q, h) = v . tanh(W q + U h).
    """
    hidden = tanh(queries[:, :, None] + keys[:, None])  # [B, Tq, Tk, A]
    scores = (hidden @ heads_apart(energy)).permute(0, 3, 1, 2)  # [B, heads, Tq, Tk]
    return weigh(scores, values, mask, dropout)


def heads_apart(energy: torch.Tensor) -> torch.Tensor:
    """Lay the vectors v `[heads, A / heads]` out as a matrix `[A, heads]` that gives each head its own slice of A."""
    if len(energy) == 1:
        return energy.T
    heads = torch.eye(len(energy), dtype=energy.dtype, device=energy.device)
    return (energy[..., None] * heads[:, None]).flatten(0, 1)


def weigh(scores: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, dropout: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn scores `[B, heads, Tq, Tk]` into context and weights; the rest is as in `eager_attention`."""
    mask = mask[:, None, None]  # [B, 1, 1, Tk]
    if dropout:
        mask = drop_tokens(mask.expand_as(scores), dropout)
    weights = masked_softmax(scores, mask)  # [B, heads, Tq, Tk]
    return weighted_sum(weights, values), weights


def weighted_sum(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Sum values `[B, Tk, H]` with the weights `[B, heads, Tq, Tk]` of each head for its own slice of H: `[B, Tq, H]`."""
    context = weights @ values.unflatten(-1, (weights.shape[1], -1)).transpose(1, 2)  # [B, heads, Tq, H / heads]
    return context.transpose(1, 2).flatten(2)
