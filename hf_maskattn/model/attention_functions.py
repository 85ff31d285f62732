"""Additive attention over projected queries and keys, in three implementations with the same numbers.

`eager` computes the scores of the whole padded batch and fills those of padding before the softmax. `ragged` works on the flat
list of tokens, so that padding never enters the graph. `chunked` is `eager` in tiles that are computed again for the gradient.
"""

from collections.abc import Iterator

import torch

from .masking import drop_tokens, masked_softmax, segment_softmax

TILE_BYTES = 2**22
"""Largest size of a tile of tanh(W q + U h) in `chunked_attention`."""


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
        values: `[B, Tk, H]`, the memory h, finite at padding.
        energy: `[heads, A / heads]`, the vector v of each head.
        mask: `[B, Tk]`, bool, True = token.
        dropout: Probability of each score to be dropped before the softmax.

    Returns:
        Context `[B, Tq, H]`, in which head k holds the k-th slice of H, and weights `[B, heads, Tq, Tk]`.

    Numerics:
        Keeps `[B, Tq, Tk, A]` for the gradient.

    Source:
        Bahdanau et al. 2015 (arXiv:1409.0473), section 3.1 and appendix A.1.2: a(q, h) = v . tanh(W q + U h).
    """
    hidden = tanh_of_sum(queries[:, :, None], keys[:, None])  # [B, Tq, Tk, A]
    scores = (hidden @ energy_matrix(energy)).permute(0, 3, 1, 2)  # [B, heads, Tq, Tk]
    return attend_with_scores(scores, values, mask, dropout)


def ragged_attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    energy: torch.Tensor,
    mask: torch.Tensor,
    dropout: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend additively over the flat list of the tokens of a batch.

    The N tokens of all rows stand in one list, token n in row r(n). Its score for query i of its row is
    s(n, i) = v . tanh(W q(r(n), i) + U h(n)), its weight exp s(n, i) divided by the sum of exp s(m, i) over the tokens m
    with r(m) = r(n), and the context of row b is the sum of weight times h over the tokens n with r(n) = b. The list has
    N entries whatever the lengths are: they change the index r, not the graph, so that one graph serves every batch, and no
    padding has a score, a weight or a gradient in it. Only the returned weights are padded, afterwards, with zeros.

    Args:
        queries: `[B, Tq, A]`, projected queries W q.
        keys: `[N, A]`, projected memory U h of the tokens, row after row.
        values: `[N, H]`, the memory h of the tokens.
        energy: `[heads, A / heads]`, the vector v of each head.
        mask: `[B, Tk]`, bool, True = token; N are True.
        dropout: Probability of each score to be dropped before the softmax.

    Returns:
        Context `[B, Tq, H]`, in which head k holds the k-th slice of H, and weights `[B, heads, Tq, Tk]`.

    Numerics:
        The same weights, outputs and gradients as `eager_attention` up to the order of summation. Reads N on the host.

    Source:
        Method 2 of masking, "freeze the attention weights of padded tokens", over a segment softmax; scores as in
        Bahdanau et al. 2015 (arXiv:1409.0473).
    """
    batch_size, num_queries, _ = queries.shape
    heads = len(energy)
    rows, columns = mask.nonzero(as_tuple=True)  # [N], [N]
    hidden = tanh_of_sum(queries[rows], keys[:, None])  # [N, Tq, A]
    scores = hidden @ energy_matrix(energy)  # [N, Tq, heads]
    if dropout:
        is_dropped = _draw_dropped_scores(scores, rows, batch_size, dropout)
        scores = scores.masked_fill(is_dropped, torch.finfo(scores.dtype).min)
    weights = segment_softmax(scores, rows, batch_size)  # [N, Tq, heads]
    weighted = weights[..., None] * values.unflatten(-1, (1, heads, -1))  # [N, Tq, heads, H / heads]
    context = weighted.new_zeros(batch_size, num_queries, values.shape[-1]).index_add(0, rows, weighted.flatten(2))
    padded_weights = weights.new_zeros(batch_size, mask.shape[1], num_queries, heads).index_put((rows, columns), weights)
    return context, padded_weights.permute(0, 3, 2, 1)


def _draw_dropped_scores(scores: torch.Tensor, rows: torch.Tensor, batch_size: int, probability: float) -> torch.Tensor:
    """Draw the scores to drop, none where a row would lose them all: bool, the shape of `scores`."""
    is_kept = torch.rand(scores.shape, device=scores.device) >= probability
    num_kept = is_kept.new_zeros(batch_size, *is_kept.shape[1:], dtype=torch.long).index_add(0, rows, is_kept.long())
    return ~is_kept & (num_kept[rows] > 0)


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
        of each row). It is computed again for the gradient, which keeps nothing larger than the scores, unless there is only
        one tile. It can be differentiated once. It is `eager_attention` for one tile without a gradient, and in a compiled
        graph, which a compiler fuses and recomputes as it sees fit, for sizes that stay open.

    Source:
        Bahdanau et al. 2015 (arXiv:1409.0473), appendix A.1.2; recomputation as in Zheng et al. 2018 (arXiv:1805.08899).
    """
    if torch.compiler.is_compiling():
        return eager_attention(queries, keys, values, energy, mask, dropout)
    # Under autocast the output of a projection is narrower than a parameter.
    keys, energy = keys.to(queries.dtype), energy.to(queries.dtype)
    num_bytes = queries.numel() * keys.shape[1] * queries.element_size()
    if num_bytes <= TILE_BYTES and not torch.is_grad_enabled():
        return eager_attention(queries, keys, values, energy, mask, dropout)
    return attend_with_scores(_TiledScores.apply(queries, keys, energy), values, mask, dropout)


class _TiledScores(torch.autograd.Function):
    """Scores v . tanh(q + k), `[B, heads, Tq, Tk]`."""

    @staticmethod
    def forward(ctx, queries, keys, energy):
        vectors = energy_matrix(energy)  # [A, heads]
        scores = queries.new_empty(len(queries), queries.shape[1], keys.shape[1], len(energy))
        only_tile = None
        for rows, columns, hidden in _hidden_tiles(queries, keys):
            scores[:, rows, columns] = hidden @ vectors
            only_tile = hidden if hidden.shape[:3] == scores.shape[:3] else None
        ctx.save_for_backward(queries, keys, energy, only_tile)
        return scores.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, grad_scores):
        if torch.is_grad_enabled():
            raise NotImplementedError(
                'attention_implementation="chunked" can be differentiated once. Use "eager" where a gradient is '
                "differentiated (create_graph=True)."
            )
        queries, keys, energy, only_tile = ctx.saved_tensors
        vectors = energy_matrix(energy)
        grad_scores = grad_scores.permute(0, 2, 3, 1)  # [B, Tq, Tk, heads]
        grad_queries, grad_keys = torch.zeros_like(queries), torch.zeros_like(keys)
        grad_vectors = torch.zeros_like(vectors)
        buffer = _new_tile_buffer(queries, keys)
        whole = (slice(None), slice(None), only_tile)
        for rows, columns, hidden in [whole] if only_tile is not None else _hidden_tiles(queries, keys):
            grad_tile = grad_scores[:, rows, columns].flatten(0, 2)  # [B * tq * tk, heads]
            grad_vectors.addmm_(hidden.flatten(0, 2).T, grad_tile)
            grad_hidden = buffer[: hidden.numel()].view_as(hidden)
            torch.mm(grad_tile, vectors.T, out=grad_hidden.flatten(0, 2))
            torch.ops.aten.tanh_backward.grad_input(grad_hidden, hidden, grad_input=grad_hidden)
            if only_tile is not None:
                grad_queries, grad_keys = grad_hidden.sum(dim=2), grad_hidden.sum(dim=1)
            else:
                grad_queries[:, rows] += grad_hidden.sum(dim=2)
                grad_keys[:, columns] += grad_hidden.sum(dim=1)
        head = torch.arange(len(energy), device=energy.device)
        return grad_queries, grad_keys, grad_vectors.unflatten(0, (len(energy), -1))[head, :, head]


def _hidden_tiles(queries: torch.Tensor, keys: torch.Tensor) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """Compute tanh(q + k) in tiles `[B, tq, tk, A]`, with their queries and keys; each tile overwrites the previous one."""
    batch_size, num_queries, width = queries.shape
    buffer = _new_tile_buffer(queries, keys)
    tile_queries, tile_keys = _tile_shape(queries, keys)
    for row in range(0, num_queries, tile_queries):
        for column in range(0, keys.shape[1], tile_keys):
            rows, columns = slice(row, row + tile_queries), slice(column, column + tile_keys)
            left, right = queries[:, rows, None], keys[:, None, columns]
            shape = (batch_size, left.shape[1], right.shape[2], width)
            hidden = buffer[: shape[0] * shape[1] * shape[2] * shape[3]].view(shape)
            yield rows, columns, _tanh_of_sum(left, right, out=hidden)


def _tile_shape(queries: torch.Tensor, keys: torch.Tensor) -> tuple[int, int]:
    """Compute how many queries and keys fit into `TILE_BYTES`, at least one of each."""
    pair_bytes = max(1, len(queries) * queries.shape[2] * queries.element_size())
    tile_keys = max(1, min(keys.shape[1], TILE_BYTES // pair_bytes))
    tile_queries = max(1, min(queries.shape[1], TILE_BYTES // (pair_bytes * tile_keys)))
    return tile_queries, tile_keys


def _new_tile_buffer(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    tile_queries, tile_keys = _tile_shape(queries, keys)
    return queries.new_empty(len(queries) * tile_queries * tile_keys * queries.shape[2])


def energy_matrix(energy: torch.Tensor) -> torch.Tensor:
    """Build the matrix `[A, heads]` whose column k holds the vector v of head k in the slice of A that belongs to it."""
    if len(energy) == 1:
        return energy.T
    heads = torch.eye(len(energy), dtype=energy.dtype, device=energy.device)
    return (energy[..., None] * heads[:, None]).flatten(0, 1)


def attend_with_scores(
    scores: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, dropout: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute context and weights from scores `[B, heads, Tq, Tk]`; otherwise as `eager_attention`."""
    mask = mask[:, None, None]  # [B, 1, 1, Tk]
    if dropout:
        mask = drop_tokens(mask.expand_as(scores), dropout)
    weights = masked_softmax(scores, mask)  # [B, heads, Tq, Tk]
    return weighted_sum(weights, values), weights


def weighted_sum(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Sum values `[B, Tk, H]` with the weights `[B, heads, Tq, Tk]` of each head for its slice of H: `[B, Tq, H]`."""
    heads = weights.shape[1]
    context = weights @ values.unflatten(-1, (heads, -1)).transpose(1, 2)  # [B, heads, Tq, H / heads]
    return context.transpose(1, 2).flatten(2)


def tanh_of_sum(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Compute tanh(left + right) of tensors of any shapes that broadcast.

    Numerics:
        For float32 tensors on a CPU as 2 sigmoid(2 x) - 1, for which torch has a much faster kernel, with an error of at most
        2e-7; otherwise torch's own.
    """
    if torch.compiler.is_compiling():
        return torch.tanh(left + right)
    return _TanhOfSum.apply(left, right) if torch.is_grad_enabled() else _tanh_of_sum(left, right)


class _TanhOfSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, left, right):
        y = _tanh_of_sum(left, right)
        ctx.save_for_backward(y)
        ctx.shapes = left.shape, right.shape
        return y

    @staticmethod
    def backward(ctx, grad_y):
        (y,) = ctx.saved_tensors
        grad_sum = torch.ops.aten.tanh_backward(grad_y, y)
        return tuple(grad_sum.sum_to_size(shape) for shape in ctx.shapes)


def _tanh_of_sum(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Compute `tanh_of_sum` without a gradient, in three passes over the result."""
    if left.device.type == "cpu" and torch.result_type(left, right) == torch.float32:
        y = torch.add(2 * left, right, alpha=2, out=out).sigmoid_()
        return torch.add(y.new_full((), -1), y, alpha=2, out=y)
    return torch.add(left, right, out=out).tanh_()
