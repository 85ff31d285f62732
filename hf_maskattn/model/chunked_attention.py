"""Additive attention, method 1 in tiles: the scores are computed piece by piece, and once more for the gradient."""

from collections.abc import Iterator

import torch

from .eager_attention import eager_attention, heads_apart, weigh
from .tanh import tanh_

TILE_BYTES = 2**22


def chunked_attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    energy: torch.Tensor,
    mask: torch.Tensor,
    dropout: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend additively over a padded batch, in memory that does not grow with Tq * Tk * A.

    Takes and returns what `eager_attention` does, with the same numbers up to the order of summation.

    Numerics:
        tanh(W q + U h) exists for one tile of queries and keys at a time, of at most `TILE_BYTES` (but one query and one key
        of each row). It is computed again for the gradient, which keeps nothing larger than the scores, unless one tile is
        all there is. It can be differentiated once. In a compiled graph it is `eager_attention`, of which a compiler fuses
        and recomputes what it does not want to keep, for sizes that stay open.

    Source:
        Bahdanau et al. 2015 (arXiv:1409.0473), appendix A.1.2; recomputation as in Zheng et al. 2018 (arXiv:1805.08899).
    """
    if torch.compiler.is_compiling():
        return eager_attention(queries, keys, values, energy, mask, dropout)
    # Under autocast what comes out of a projection is narrower than a parameter.
    scores = _TiledScores.apply(queries, keys.to(queries.dtype), energy.to(queries.dtype))
    return weigh(scores, values, mask, dropout)


class _TiledScores(torch.autograd.Function):
    """Scores v . tanh(q + k), `[B, heads, Tq, Tk]`."""

    @staticmethod
    def forward(ctx, queries, keys, energy):
        heads = heads_apart(energy)  # [A, heads]
        scores = queries.new_empty(len(queries), queries.shape[1], keys.shape[1], len(energy))
        only_tile = None
        for rows, columns, hidden in _hidden_tiles(queries, keys):
            scores[:, rows, columns] = hidden @ heads
            only_tile = hidden if hidden.shape[:3] == scores.shape[:3] else None
        ctx.save_for_backward(queries, keys, energy, only_tile)
        return scores.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, grad):
        if torch.is_grad_enabled():
            raise NotImplementedError(
                'attention_implementation="chunked" can be differentiated once: take "eager" where a gradient is '
                "differentiated (create_graph=True)."
            )
        queries, keys, energy, only_tile = ctx.saved_tensors
        heads = heads_apart(energy)
        grad = grad.permute(0, 2, 3, 1)  # [B, Tq, Tk, heads]
        of_queries, of_keys = torch.zeros_like(queries), torch.zeros_like(keys)
        of_heads = torch.zeros_like(heads)
        buffer = _buffer(queries, keys)
        everything = (slice(None), slice(None), only_tile)
        for rows, columns, hidden in [everything] if only_tile is not None else _hidden_tiles(queries, keys):
            tile = grad[:, rows, columns].flatten(0, 2)
            of_heads.addmm_(hidden.flatten(0, 2).T, tile)
            of_hidden = buffer[: hidden.numel()].view_as(hidden)
            torch.mm(tile, heads.T, out=of_hidden.flatten(0, 2))
            torch.ops.aten.tanh_backward.grad_input(of_hidden, hidden, grad_input=of_hidden)
            if only_tile is not None:
                of_queries, of_keys = of_hidden.sum(dim=2), of_hidden.sum(dim=1)
            else:
                of_queries[:, rows] += of_hidden.sum(dim=2)
                of_keys[:, columns] += of_hidden.sum(dim=1)
        own = torch.arange(len(energy), device=energy.device)
        return of_queries, of_keys, of_heads.unflatten(0, (len(energy), -1))[own, :, own]


def _hidden_tiles(queries: torch.Tensor, keys: torch.Tensor) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """Go through tanh(q + k) in tiles `[B, tq, tk, A]`, with their queries and keys; each overwrites the one before."""
    buffer = _buffer(queries, keys)
    height, width = _tile_shape(queries, keys)
    for row in range(0, queries.shape[1], height):
        for column in range(0, keys.shape[1], width):
            rows, columns = slice(row, row + height), slice(column, column + width)
            left, right = queries[:, rows, None], keys[:, None, columns]
            hidden = buffer[: left.shape[1] * right.shape[2] * len(queries) * queries.shape[2]]
            yield rows, columns, tanh_(torch.add(left, right, out=hidden.view(*left.shape[:2], *right.shape[2:])))


def _tile_shape(queries: torch.Tensor, keys: torch.Tensor) -> tuple[int, int]:
    """Find how many queries and keys fit into `TILE_BYTES`, at least one of each."""
    cell = max(1, len(queries) * queries.shape[2] * queries.element_size())
    width = max(1, min(keys.shape[1], TILE_BYTES // cell))
    height = max(1, min(queries.shape[1], TILE_BYTES // (cell * width)))
    return height, width


def _buffer(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    height, width = _tile_shape(queries, keys)
    return queries.new_empty(len(queries) * height * width * queries.shape[2])
