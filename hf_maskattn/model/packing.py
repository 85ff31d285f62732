"""The packed layout of a batch: the tokens of all rows, time step by time step, longest rows first, without padding.

It is the layout of torch's `PackedSequence`, with two additions. Time is cut into chunks in which a constant number of rows
runs, so that torch's dense kernels can read it; where a row ends inside a chunk, its remaining positions are empty, and what a
kernel computes for them is never read. And for a bidirectional layer the same rows are packed a second time, read from their
ends. Packing and unpacking are one-to-one on tokens, so that the gradient of each is a gather as well.
"""

from bisect import bisect_left
from collections.abc import Sequence
from operator import neg
from typing import NamedTuple

import torch

_CALL_COST = 40
_CALL_COST_AT_WIDTH_ONE = 8000
_QUANTILES = 16


class TimeChunk(NamedTuple):
    """A range of time steps in which the same rows run.

    Attributes:
        steps: Number of time steps.
        rows: Number of rows, the longest ones of the batch.
    """

    steps: int
    rows: int


def split_time_exactly(lengths: Sequence[int]) -> tuple[TimeChunk, ...]:
    """Cut time wherever a row ends, for a kernel whose calls cost nothing.

    Args:
        lengths: Number of tokens of each row, longest first, the first at least 1.

    Returns:
        Chunks from the first step to the last step of the longest row; each has fewer rows than the previous one.
    """
    return _build_chunks(sorted({length for length in lengths if length}), lengths)


def split_time_at_quantiles(lengths: Sequence[int], count: int) -> tuple[TimeChunk, ...]:
    """Cut time at most `count - 1` times, after about equal numbers of rows have ended; see `split_time_exactly`."""
    return _build_chunks(_length_quantiles(lengths, count), lengths)


def split_time_cheaply(lengths: Sequence[int], width: int) -> tuple[TimeChunk, ...]:
    """Cut time where the saved steps cost more than a kernel call.

    A chunk costs one unit for each of its steps and rows, and for one more call of the kernel `40 + 8000 / width` units,
    which was fitted to the times of LSTMs of 32 to 512 units on two CPU cores. The cheapest cuts among 16 quantiles of the
    lengths are found by dynamic programming.

    Args:
        lengths: Number of tokens of each row, longest first, the first at least 1.
        width: Number of units of the kernel; the cost of a step grows with it.
    """
    call_cost = _CALL_COST + _CALL_COST_AT_WIDTH_ONE / width
    if lengths[0] * _count_running(lengths, 0) - sum(lengths) <= call_cost:
        return _build_chunks([lengths[0]], lengths)
    ends = _length_quantiles(lengths, _QUANTILES)
    starts = [0, *ends]
    # best[i] is the lowest cost of the steps up to starts[i], and the ends of the chunks that reach it.
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for end in ends:
        candidates = []
        for start, (cost, chunk_ends) in zip(starts, best, strict=False):
            chunk_cost = (end - start) * _count_running(lengths, start) + call_cost
            candidates.append((cost + chunk_cost, [*chunk_ends, end]))
        best.append(min(candidates))
    return _build_chunks(best[-1][1], lengths)


def _build_chunks(ends: Sequence[int], lengths: Sequence[int]) -> tuple[TimeChunk, ...]:
    starts = [0, *ends[:-1]]
    return tuple(TimeChunk(end - start, _count_running(lengths, start)) for start, end in zip(starts, ends, strict=True))


def _count_running(lengths: Sequence[int], step: int) -> int:
    """Count the rows that are longer than `step`; `lengths` descend."""
    return bisect_left(lengths, -step, key=neg)


def _length_quantiles(lengths: Sequence[int], count: int) -> list[int]:
    """Select the lengths of `count` evenly spaced rows, the longest among them: ascending, without repetition."""
    return sorted({lengths[index * len(lengths) // count] for index in range(count)} - {0})


class PackedLayout(NamedTuple):
    """Where each token of a batch of B rows and T columns stands in a packed list of N positions, for D directions.

    Attributes:
        time_chunks: Steps and rows of the chunks; the N positions are their steps, one after the other.
        token_indices: `[D, N + 1]`, int64, the token (row * T + column) at each position; any token where the position is
            empty, and at the extra last position.
        packed_indices: `[B * T, D]`, int64, the position of each token; for padding the extra last one.
        is_empty: `[N + 1, 1]`, bool, True where a position has no token; None if only the extra last one has none.
        sorted_indices: `[B]`, int64, the rows in the order in which they stand in a step; None for the order of the batch.
        mask_shape: `(B, T)`.
    """

    time_chunks: tuple[TimeChunk, ...]
    token_indices: torch.Tensor
    packed_indices: torch.Tensor
    is_empty: torch.Tensor | None
    sorted_indices: torch.Tensor | None
    mask_shape: torch.Size


def build_packed_layout(
    mask: torch.Tensor,
    lengths: torch.Tensor,
    directions: int,
    time_chunks: tuple[TimeChunk, ...] | None = None,
    num_tokens: int | None = None,
) -> PackedLayout:
    """Build the packed layout of a batch.

    Args:
        mask: `[B, T]`, bool, True = token; T >= 1.
        lengths: `[B]`, int64, number of tokens of each row.
        directions: 1, or 2 for rows that are read from both ends.
        time_chunks: Steps and rows of each chunk; None for a single chunk of all T steps and B rows, which needs no value on
            the host.
        num_tokens: Number of tokens of the batch, where the host knows it.
    """
    (batch_size, time), device = mask.shape, mask.device
    if time_chunks is None:
        time_chunks = (TimeChunk(time, batch_size),)
    num_positions = sum(chunk.steps * chunk.rows for chunk in time_chunks)
    if len(time_chunks) == 1:
        step_starts = torch.arange(time_chunks[0].steps, device=device) * time_chunks[0].rows  # [steps]
    else:
        batch_sizes = torch.tensor([chunk.rows for chunk in time_chunks for _ in range(chunk.steps)], device=device)
        step_starts = batch_sizes.cumsum(0) - batch_sizes
    rank = torch.arange(batch_size, device=device)  # [B], where each row stands in a step
    sorted_indices = None
    if time_chunks[0].rows < batch_size or len(time_chunks) > 1:
        sorted_indices = lengths.argsort(descending=True, stable=True)
        rank = torch.empty_like(rank).scatter_(0, sorted_indices, rank)
    forward_step = mask.cumsum(dim=1) - 1  # [B, T], the time step of each token
    steps = [forward_step] if directions == 1 else [forward_step, lengths[:, None] - 1 - forward_step]
    is_padding = ~mask
    positions = []
    for step in steps:
        position = step_starts[step.masked_fill_(is_padding, 0)] + rank[:, None]
        positions.append(position.masked_fill_(is_padding, num_positions))
    packed_indices = torch.stack(positions, dim=-1).flatten(0, 1)  # [B * T, D]
    tokens = torch.arange(batch_size * time, device=device)
    token_indices = tokens.new_zeros(directions, num_positions + 1)
    token_indices.scatter_(1, packed_indices.T, tokens.expand(directions, -1))
    is_empty = None
    if num_positions != num_tokens:
        is_empty = torch.ones(num_positions + 1, 1, dtype=torch.bool, device=device)
        is_empty.index_fill_(0, packed_indices[:, 0], False)
    return PackedLayout(time_chunks, token_indices, packed_indices, is_empty, sorted_indices, mask.shape)


def pack_tokens(x: torch.Tensor, layout: PackedLayout) -> torch.Tensor:
    """Bring tokens into the packed layout.

    Whatever stands at padding, NaN included, reaches no position but the extra last one, and no gradient as long as nothing
    reads that one.

    Args:
        x: `[B, T, W]`.
        layout: The packed layout of the batch.

    Returns:
        `[D, N + 1, W]`, 0 at empty positions; the extra last position must not be read.
    """
    return _PackTokens.apply(x, layout)


def unpack_tokens(packed: torch.Tensor, layout: PackedLayout) -> torch.Tensor:
    """Bring packed values back to their tokens, and the extra last position to the padding.

    Args:
        packed: `[D, N + 1, W]`, whose last position holds the value for padding.
        layout: The packed layout of the batch.

    Returns:
        `[B, T, D * W]`.
    """
    return _UnpackTokens.apply(packed, layout)


class _PackTokens(torch.autograd.Function):
    """A gather whose gradient is a gather; the gradient of `index_select` is a scatter, several times slower on a CPU."""

    @staticmethod
    def forward(ctx, x, layout):
        ctx.layout, ctx.shape = layout, x.shape
        return _select_tokens(x.reshape(-1, x.shape[2]), layout.token_indices, layout.is_empty)

    @staticmethod
    def backward(ctx, grad_packed):
        packed_indices = ctx.layout.packed_indices
        grad_x = grad_packed[0].index_select(0, packed_indices[:, 0])
        for direction in range(1, len(grad_packed)):
            grad_x += grad_packed[direction].index_select(0, packed_indices[:, direction])
        return grad_x.view(ctx.shape), None


class _UnpackTokens(torch.autograd.Function):
    @staticmethod
    def forward(ctx, packed, layout):
        directions, positions, width = packed.shape
        ctx.layout = layout
        direction_starts = torch.arange(0, directions * positions, positions, device=packed.device)
        x = packed.reshape(-1, width).index_select(0, (layout.packed_indices + direction_starts).flatten())
        return x.view(*layout.mask_shape, directions * width)

    @staticmethod
    def backward(ctx, grad_x):
        layout = ctx.layout
        directions = len(layout.token_indices)
        direction = torch.arange(directions, device=grad_x.device)[:, None]
        flat = grad_x.reshape(-1, grad_x.shape[2] // directions)  # [B * T * D, W]
        return _select_tokens(flat, layout.token_indices * directions + direction, layout.is_empty), None


def _select_tokens(flat: torch.Tensor, indices: torch.Tensor, is_empty: torch.Tensor | None) -> torch.Tensor:
    """Select entries `indices` `[D, N + 1]` of a flat list: `[D, N + 1, W]`, 0 at empty positions."""
    packed = flat.index_select(0, indices.flatten()).view(*indices.shape, flat.shape[1])
    return packed if is_empty is None else packed.masked_fill_(is_empty, 0)
