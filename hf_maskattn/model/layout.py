"""Where the real tokens of a batch stand when they are brought to the front of their rows, and the way back.

A recurrence must not see a pad between two real tokens. With the real tokens first, a forward pass meets the pads after
the last real token and a backward pass, run over the row reversed within its length, does so too: no real state depends
on one. The three rearrangements below map real tokens one to one, so that the gradient of each is its inverse.
"""

from typing import NamedTuple

import torch

from .tensor_checks import host_can_read


class FrontLayout(NamedTuple):
    """The arrangement of one batch. L is the longest row where the host can know it for free, otherwise T.

    Attributes:
        mask: `[B, T]`, bool, True where a token is real, in the caller's columns.
        front_mask: `[B, L]`, bool, the same after bringing real tokens to the front.
        lengths: `[B]`, int64, real tokens in each row.
        source: `[B, L]`, int64, the caller's column of each token at the front; None if nothing moves.
        target: `[B, T]`, int64, the front column of each of the caller's real tokens; None if nothing moves.
        reversal: `[B, L]`, int64, the column of each token in the row reversed within its length.
    """

    mask: torch.Tensor
    front_mask: torch.Tensor
    lengths: torch.Tensor
    source: torch.Tensor | None
    target: torch.Tensor | None
    reversal: torch.Tensor


def front_layout(mask: torch.Tensor) -> FrontLayout:
    """Work out the front layout of a batch, keeping the order of the real tokens.

    Args:
        mask: `[B, T]`, bool, True = real; T >= 1.

    Returns:
        The layout. On a CPU it is cut to the longest row and a right-padded batch is recognized as one that need not move;
        elsewhere neither is known without a host sync, and L = T.
    """
    time = mask.shape[1]
    lengths = mask.sum(dim=1)  # [B]
    columns = torch.arange(time, device=mask.device)
    extent, moves = time, True
    if host_can_read(mask):
        extent = max([1, *lengths.tolist()])
        moves = not torch.equal(mask, columns < lengths[:, None])
    source = target = None
    if moves:
        # A stable partition by two running counts: unlike a sort, it has an ONNX form.
        real_before = mask.cumsum(dim=1) - 1
        pads_before = (~mask).cumsum(dim=1) - 1
        target = torch.where(mask, real_before, lengths[:, None] + pads_before)  # [B, T]
        source = torch.empty_like(target).scatter_(1, target, columns.expand_as(target))[:, :extent]  # [B, L]
        target = target.clamp(max=extent - 1)
    columns = columns[:extent]
    front_mask = columns < lengths[:, None]  # [B, L]
    reversal = torch.where(front_mask, lengths[:, None] - 1 - columns, columns)  # [B, L]
    return FrontLayout(mask, front_mask, lengths, source, target, reversal)


def bring_to_front(x: torch.Tensor, layout: FrontLayout) -> torch.Tensor:
    """Move real tokens to the front of their rows and put zeros behind them: `[B, T, D]` -> `[B, L, D]`.

    Whatever stands at a pad, NaN included, is not read: neither the result nor its gradient can hold it.
    """
    pads = ~layout.front_mask[..., None]
    if layout.source is None or layout.target is None:
        return x[:, : pads.shape[1]].masked_fill(pads, 0)
    return _Rearrange.apply(x, layout.source, layout.target, pads, ~layout.mask[..., None])


def bring_back(x: torch.Tensor, layout: FrontLayout) -> torch.Tensor:
    """Move tokens from the front to the caller's columns, with zeros at the pads: `[B, L, D]` -> `[B, T, D]`."""
    pads, front_pads = ~layout.mask[..., None], ~layout.front_mask[..., None]
    if layout.source is None or layout.target is None:
        missing = pads.shape[1] - front_pads.shape[1]
        return torch.nn.functional.pad(x.masked_fill(front_pads, 0), (0, 0, 0, missing))
    return _Rearrange.apply(x, layout.target, layout.source, pads, front_pads)


def reverse(x: torch.Tensor, layout: FrontLayout) -> torch.Tensor:
    """Reverse each row of a front-layout tensor within its length: `[B, L, D]` -> `[B, L, D]`, zeros at the pads."""
    pads = ~layout.front_mask[..., None]
    return _Rearrange.apply(x, layout.reversal, layout.reversal, pads, pads)


class _Rearrange(torch.autograd.Function):
    """Gather columns by `index`, zeros where `pads`; the gradient is the same with the inverse index and its pads.

    A plain gather would have a scatter as its gradient: correct, and several times slower on a CPU.
    """

    @staticmethod
    def forward(ctx, x, index, inverse, pads, inverse_pads):
        ctx.save_for_backward(index, inverse, pads, inverse_pads)
        rows = torch.arange(index.shape[0], device=index.device)[:, None] * x.shape[1]
        flat = x.reshape(-1, x.shape[2]).index_select(0, (index + rows).flatten())
        return flat.view(*index.shape, x.shape[2]).masked_fill(pads, 0)

    @staticmethod
    def backward(ctx, grad):
        index, inverse, pads, inverse_pads = ctx.saved_tensors
        return _Rearrange.apply(grad, inverse, index, inverse_pads, pads), None, None, None, None
