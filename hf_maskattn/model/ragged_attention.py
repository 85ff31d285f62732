"""Additive attention, method 2: pads never enter the computation graph."""

import torch

from .eager_attention import heads_apart
from .softmax import segment_softmax
from .tanh import tanh


def ragged_attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    energy: torch.Tensor,
    mask: torch.Tensor,
    dropout: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend additively over the flat list of the real tokens of a batch.

    The N real tokens of all rows stand in one list, token n in row r(n). Its score for query i of its row is
    s(n, i) = v . tanh(W q(r(n), i) + U h(n)), its weight exp s(n, i) divided by the sum of exp s(m, i) over the tokens m
    with r(m) = r(n), and the context of row b is the sum of weight times h over the tokens n with r(n) = b. The list has
    N entries whatever the lengths are: they change the index r, not the graph, so one graph serves every batch and no pad
    has a score, a weight or a gradient in it. Only the map of weights that is returned is padded, after the fact, with zeros.

    Args:
        queries: `[B, Tq, A]`, projected queries W q.
        keys: `[N, A]`, projected memory U h of the real tokens, row after row.
        values: `[N, H]`, the memory h of the real tokens.
        energy: `[heads, A / heads]`, the vector v of each head.
        mask: `[B, Tk]`, bool, True = real, with N True.
        dropout: Chance of each score to be dropped before the softmax.

    Returns:
        Context `[B, Tq, H]`, in which head k holds the k-th slice of H, and weights `[B, heads, Tq, Tk]`.

    Numerics:
        The same weights, outputs and gradients as `eager_attention` up to the order of summation. Reads N on the host.

    Source:
        Method 2 of masking, "freeze the attention weights of padded tokens", over a segment softmax; scores as in
        Bahdanau et al. 2015 (arXiv:1409.0473).
    """
    (batch_size, num_queries, _), (heads, _) = queries.shape, energy.shape
    rows, columns = mask.nonzero(as_tuple=True)  # [N], [N]
    hidden = tanh(queries[rows] + keys[:, None])  # [N, Tq, A]
    scores = hidden @ heads_apart(energy)  # [N, Tq, heads]
    if dropout:
        scores = scores.masked_fill(_dropped(scores, rows, batch_size, dropout), torch.finfo(scores.dtype).min)
    weights = segment_softmax(scores, rows, batch_size)  # [N, Tq, heads]
    weighted = weights[..., None] * values.unflatten(-1, (1, heads, -1))  # [N, Tq, heads, H / heads]
    context = weighted.new_zeros(batch_size, num_queries, values.shape[-1]).index_add(0, rows, weighted.flatten(2))
    padded = weights.new_zeros(batch_size, mask.shape[1], num_queries, heads).index_put((rows, columns), weights)
    return context, padded.permute(0, 3, 2, 1)


def _dropped(scores: torch.Tensor, rows: torch.Tensor, batch_size: int, probability: float) -> torch.Tensor:
    """Choose the scores to drop, none where a row would lose them all: bool, the shape of `scores`."""
    kept = torch.rand(scores.shape, device=scores.device) >= probability
    kept_in_row = kept.new_zeros(batch_size, *kept.shape[1:], dtype=torch.long).index_add(0, rows, kept.long())
    return ~kept & (kept_in_row[rows] > 0)
