"""The arrangement of a batch that recurrent kernels read: real tokens alone, time by time, longest rows first.

A recurrence must not see a pad. Each real token has a cell in a flat list, in which the tokens that are read at the same
time stand together; a second list holds the same rows read from their ends. Where a row ends inside a segment, empty cells
follow: what a kernel computes for them is never read. Both ways map tokens to cells one to one, so that the gradient of each
is a gather, too.
"""

from typing import NamedTuple

import torch

from .segments import Segment


class CellLayout(NamedTuple):
    """The arrangement of one batch of B rows and T columns in N cells, for D directions.

    Attributes:
        segments: Steps and rows of the segments, of which the cells are the steps, one after the other.
        source: `[D, N + 1]`, int64, the token (row * T + column) in each cell, any where there is none, as in the last.
        target: `[B * T, D]`, int64, the cell of each token; at pads the last.
        empty: `[N + 1, 1]`, bool, True where a cell has no token; None if only the last has none.
        order: `[B]`, int64, the rows in the order in which they stand in a step; None if in that of the batch.
        mask_shape: `(B, T)`.
    """

    segments: tuple[Segment, ...]
    source: torch.Tensor
    target: torch.Tensor
    empty: torch.Tensor | None
    order: torch.Tensor | None
    mask_shape: torch.Size


def cell_layout(
    mask: torch.Tensor,
    lengths: torch.Tensor,
    directions: int,
    segments: tuple[Segment, ...] | None = None,
    num_tokens: int | None = None,
) -> CellLayout:
    """Work out the arrangement of a batch.

    Args:
        mask: `[B, T]`, bool, True = real; T >= 1.
        lengths: `[B]`, int64, real tokens in each row.
        directions: 1, or 2 for rows read from both ends.
        segments: Steps and rows of each segment; None for a single one of all T steps and B rows, which needs no value on
            the host.
        num_tokens: Number of real tokens, where the host knows it.
    """
    (batch_size, time), device = mask.shape, mask.device
    if segments is None:
        segments = (Segment(time, batch_size),)
    count = sum(segment.steps * segment.rows for segment in segments)
    if len(segments) == 1:
        first = torch.arange(segments[0].steps, device=device) * segments[0].rows  # [L], the first cell of each step
    else:
        rows = torch.tensor([segment.rows for segment in segments for _ in range(segment.steps)], device=device)
        first = rows.cumsum(0) - rows
    place = torch.arange(batch_size, device=device)  # [B], where each row stands in a step
    order = None
    if segments[0].rows < batch_size or len(segments) > 1:
        order = lengths.argsort(descending=True, stable=True)
        place = torch.empty_like(place).scatter_(0, order, place)
    step = mask.cumsum(dim=1) - 1  # [B, T], when a real token is read
    steps = [step] if directions == 1 else [step, lengths[:, None] - 1 - step]
    pads = ~mask
    cells = [(first[step.masked_fill_(pads, 0)] + place[:, None]).masked_fill_(pads, count) for step in steps]  # [B, T] each
    target = torch.stack(cells, dim=-1).flatten(0, 1)  # [B * T, D]
    tokens = torch.arange(batch_size * time, device=device)
    source = tokens.new_zeros(directions, count + 1).scatter_(1, target.T, tokens.expand(directions, -1))
    empty = None
    if count != num_tokens:
        empty = torch.ones(count + 1, 1, dtype=torch.bool, device=device).index_fill_(0, target[:, 0], False)
    return CellLayout(segments, source, target, empty, order, mask.shape)


def to_cells(x: torch.Tensor, cells: CellLayout) -> torch.Tensor:
    """Move tokens to their cells.

    Whatever stands at a pad, NaN included, reaches neither a cell before the last nor, if nothing reads the last, a gradient.

    Args:
        x: `[B, T, W]`.
        cells: The arrangement.

    Returns:
        `[D, N + 1, W]`, zeros in empty cells; the last cell is not to be read.
    """
    return _ToCells.apply(x, cells)


def from_cells(y: torch.Tensor, cells: CellLayout) -> torch.Tensor:
    """Move what was computed in cells back to their tokens, and the last cell to the pads.

    Args:
        y: `[D, N + 1, W]`, of which the last cell holds what shall stand at pads.
        cells: The arrangement.

    Returns:
        `[B, T, D * W]`.
    """
    return _FromCells.apply(y, cells)


class _ToCells(torch.autograd.Function):
    """A gather whose gradient is a gather: that of index_select is a scatter, several times slower on a CPU."""

    @staticmethod
    def forward(ctx, x, cells):
        ctx.cells, ctx.shape = cells, x.shape
        return _at_tokens(x.reshape(-1, x.shape[2]), cells.source, cells.empty)

    @staticmethod
    def backward(ctx, grad):
        target = ctx.cells.target
        x = grad[0].index_select(0, target[:, 0])
        for direction in range(1, len(grad)):
            x += grad[direction].index_select(0, target[:, direction])
        return x.view(ctx.shape), None


class _FromCells(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, cells):
        directions, count, width = y.shape
        ctx.cells = cells
        start = torch.arange(0, directions * count, count, device=y.device)
        x = y.reshape(-1, width).index_select(0, (cells.target + start).flatten())
        return x.view(*cells.mask_shape, directions * width)

    @staticmethod
    def backward(ctx, grad):
        cells, directions = ctx.cells, len(ctx.cells.source)
        place = torch.arange(directions, device=grad.device)[:, None]
        flat = grad.reshape(-1, grad.shape[2] // directions)  # [B * T * D, W]
        return _at_tokens(flat, cells.source * directions + place, cells.empty), None


def _at_tokens(flat: torch.Tensor, source: torch.Tensor, empty: torch.Tensor | None) -> torch.Tensor:
    """Take the entries `source` `[D, N + 1]` of a flat list: `[D, N + 1, W]`, zeros in empty cells."""
    y = flat.index_select(0, source.flatten()).view(*source.shape, flat.shape[1])
    return y if empty is None else y.masked_fill_(empty, 0)
