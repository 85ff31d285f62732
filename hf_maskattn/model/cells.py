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
        source: `[D, N]`, int64, the token (row * T + column) in each cell, any where there is none.
        target: `[B * T, D]`, int64, the cell of each token, any at pads.
        empty: `[N, 1]`, bool, True where a cell has no token; None if every cell has one.
        pads: `[B, T, 1]`, bool, True where a token is a pad.
    """

    segments: tuple[Segment, ...]
    source: torch.Tensor
    target: torch.Tensor
    empty: torch.Tensor | None
    pads: torch.Tensor


def cell_layout(mask: torch.Tensor, lengths: torch.Tensor, segments: tuple[Segment, ...] | None, directions: int) -> CellLayout:
    """Work out the arrangement of a batch.

    Args:
        mask: `[B, T]`, bool, True = real; T >= 1.
        lengths: `[B]`, int64, real tokens in each row.
        segments: Steps and rows of each segment, by which rows are sorted; None for a single segment of all T steps and B
            rows, which needs no value on the host.
        directions: 1, or 2 for rows read from both ends.
    """
    (batch_size, time), device = mask.shape, mask.device
    rank = torch.arange(batch_size, device=device)  # [B], where each row stands in a step
    if segments is None:
        segments = (Segment(time, batch_size),)
        starts = torch.arange(time, device=device) * batch_size  # [L], the first cell of each step
        count = time * batch_size
    else:
        rank = torch.empty_like(rank).scatter_(0, lengths.argsort(descending=True, stable=True), rank)
        rows = torch.tensor([segment.rows for segment in segments for _ in range(segment.steps)], device=device)
        starts = rows.cumsum(0) - rows
        count = sum(segment.steps * segment.rows for segment in segments)
    step = mask.cumsum(dim=1) - 1  # [B, T], when a real token is read
    steps = [step, lengths[:, None] - 1 - step][:directions]
    pads = ~mask[..., None]
    target = torch.stack([starts[step.masked_fill(~mask, 0)] + rank[:, None] for step in steps], dim=-1)  # [B, T, D]
    target = target.masked_fill(pads, count).flatten(0, 1)  # pads share a cell behind the last one
    tokens = torch.arange(batch_size * time, device=device)
    source = tokens.new_zeros(directions, count + 1).scatter_(1, target.T, tokens.expand(directions, -1))[:, :count]
    empty = torch.ones(count + 1, 1, dtype=torch.bool, device=device).index_fill_(0, target[:, 0], False)[:count]
    return CellLayout(segments, source, target.clamp(max=count - 1), empty, pads)


def to_cells(x: torch.Tensor, cells: CellLayout) -> torch.Tensor:
    """Move tokens to their cells: `[B, T, W]` -> `[D, N, W]`, zeros in empty cells.

    Whatever stands at a pad, NaN included, is not read: neither the result nor its gradient can hold it.
    """
    return _ToCells.apply(x, cells)


def from_cells(y: torch.Tensor, cells: CellLayout) -> torch.Tensor:
    """Move what was computed in cells back to their tokens: `[D, N, W]` -> `[B, T, D * W]`, zeros at pads."""
    return _FromCells.apply(y, cells)


class _ToCells(torch.autograd.Function):
    """A gather whose gradient is a gather: that of index_select is a scatter, several times slower on a CPU."""

    @staticmethod
    def forward(ctx, x, cells):
        ctx.cells, ctx.shape = cells, x.shape
        return _gather_cells(x.reshape(-1, x.shape[2]), cells.source, cells.empty)

    @staticmethod
    def backward(ctx, grad):
        cells = ctx.cells
        x = grad[0].index_select(0, cells.target[:, 0])
        for direction in range(1, len(grad)):
            x += grad[direction].index_select(0, cells.target[:, direction])
        return x.view(ctx.shape).masked_fill_(cells.pads, 0), None


class _FromCells(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, cells):
        directions, count, width = y.shape
        ctx.cells = cells
        place = torch.arange(directions, device=y.device) * count
        x = y.reshape(-1, width).index_select(0, (cells.target + place).flatten())
        x = x.view(*cells.pads.shape[:2], directions * width)
        return x.masked_fill_(cells.pads, 0)

    @staticmethod
    def backward(ctx, grad):
        cells, directions = ctx.cells, len(ctx.cells.source)
        place = torch.arange(directions, device=grad.device)[:, None]
        flat = grad.reshape(-1, grad.shape[2] // directions)  # [B * T * D, W]
        return _gather_cells(flat, cells.source * directions + place, cells.empty), None


def _gather_cells(flat: torch.Tensor, source: torch.Tensor, empty: torch.Tensor | None) -> torch.Tensor:
    """Take the entries `source` `[D, N]` of a flat list: `[D, N, W]`, zeros in empty cells."""
    y = flat.index_select(0, source.flatten()).view(*source.shape, flat.shape[1])
    return y if empty is None else y.masked_fill_(empty, 0)
