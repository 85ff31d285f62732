"""What is done to each token on its own is done to the real tokens alone, where that pays."""

from collections.abc import Callable

import torch

from .cells import CellLayout, from_cells, to_cells
from .segments import Segment
from .tensor_checks import host_can_read

_FEW_PADS = 1 / 4
_FEW_NUMBERS = 2**16


def over_real_tokens(
    function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, mask: torch.Tensor, width: int
) -> torch.Tensor:
    """Apply a function of single tokens to the real tokens of a batch.

    Args:
        function: Maps `[..., W]` to `[..., V]`, or ids `[...]` to `[..., V]`, each token on its own.
        x: `[B, T, W]` or, of ids, `[B, T]`; finite (or a valid id) at pads.
        mask: `[B, T]`, bool, True = real.
        width: V, by which it is judged whether leaving the pads out pays.

    Returns:
        `[B, T, V]`, right at real tokens. At pads it is 0, or where pads are few or the host does not know them, what the
        function makes of what stands there.
    """
    num_tokens = int(mask.sum()) if host_can_read(mask) else mask.numel()
    num_pads = mask.numel() - num_tokens
    if not num_tokens or num_pads <= _FEW_PADS * mask.numel() or num_pads * width < _FEW_NUMBERS:
        return function(x)
    cells = _cells_in_order(mask, num_tokens)
    y = function(x[mask] if x.dim() == 2 else to_cells(x, cells)[0, :-1])  # [N, V]
    return from_cells(torch.cat([y, y.new_zeros(1, y.shape[1])])[None], cells)


def _cells_in_order(mask: torch.Tensor, num_tokens: int) -> CellLayout:
    """Arrange real tokens one row after the other."""
    target = (mask.flatten().cumsum(0) - 1).masked_fill_(~mask.flatten(), num_tokens)[:, None]  # [B * T, 1]
    source = torch.nn.functional.pad(mask.flatten().nonzero().T, (0, 1))  # [1, N + 1]
    return CellLayout((Segment(1, num_tokens),), source, target, None, mask.shape)
