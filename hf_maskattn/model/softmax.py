"""Attention weights that are probabilities over the real tokens: two forms of one softmax, and its dropout."""

import torch

from .precision import at_least_float32


def masked_softmax(scores: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Normalize scores over the real tokens of the last axis.

    Args:
        scores: `[..., T]`, floating point.
        mask: Bool, broadcastable to `scores`, True = real; None means that all are.

    Returns:
        Weights `[..., T]` of the dtype of `scores`: >= 0, exactly 0 at pads, summing to one over the real tokens; all 0
        where no token is real.

    Numerics:
        Pads are filled with the lowest finite number, not with minus infinity, so that a row without a real token gives
        no NaN in either direction; 16-bit scores are normalized in 32 bits.

    Source:
        Method 1 of masking before the softmax; Bahdanau et al. 2015 (arXiv:1409.0473), section 3.1, for the weights.
    """
    wide = at_least_float32(scores)
    if wide is not scores:
        return masked_softmax(wide, mask).to(scores.dtype)
    if mask is None:
        return scores.softmax(dim=-1)
    pads = ~mask
    return scores.masked_fill(pads, torch.finfo(scores.dtype).min).softmax(dim=-1).masked_fill(pads, 0)


def segment_softmax(scores: torch.Tensor, segments: torch.Tensor, num_segments: int) -> torch.Tensor:
    """Normalize the scores of a flat list of tokens within the segment (the row of the batch) that each belongs to.

    Args:
        scores: `[N, ...]`, floating point, one entry for each real token of the batch.
        segments: `[N]`, int64, the segment of each token, in 0..num_segments-1.
        num_segments: Number of segments; one may be empty.

    Returns:
        Weights `[N, ...]` of the dtype of `scores`, >= 0, summing to one within each segment that has a token.

    Numerics:
        The highest score of each segment is subtracted first; 16-bit scores are normalized in 32 bits.
    """
    wide = at_least_float32(scores)
    shape = (num_segments, *wide.shape[1:])
    index = segments.view(-1, *[1] * (wide.dim() - 1)).expand_as(wide)
    highest = wide.new_full(shape, -torch.inf).scatter_reduce(0, index, wide.detach(), "amax")
    powers = (wide - highest[segments]).exp()
    totals = powers.new_zeros(shape).index_add(0, segments, powers)
    return (powers / totals[segments]).to(scores.dtype)


def drop_tokens(mask: torch.Tensor, probability: float) -> torch.Tensor:
    """Drop real tokens at random: attention dropout before the softmax, after which weights still sum to one.

    Args:
        mask: `[..., T]`, bool, True = real.
        probability: Chance of each real token to be dropped, in 0..1.

    Returns:
        `[..., T]`, bool. A row that would lose all of its real tokens keeps them all.
    """
    kept = mask & (torch.rand(mask.shape, device=mask.device) >= probability)
    return torch.where(kept.any(dim=-1, keepdim=True), kept, mask)
