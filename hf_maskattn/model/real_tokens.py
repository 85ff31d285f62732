"""What is done to each token on its own is done to the real tokens alone, where that pays."""

from collections.abc import Callable

import torch

from .tensor_checks import host_can_read

_FEW_PADS = 1 / 4
_LITTLE_WORK = 2**16


def over_real_tokens(
    function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, mask: torch.Tensor | None, width: int
) -> torch.Tensor:
    """Apply a function of single tokens to the real tokens of a batch.

    Args:
        function: Maps `[..., W]` to `[..., V]`, or ids `[...]` to `[..., V]`, each token on its own.
        x: `[B, T, W]` or, of ids, `[B, T]`; finite (or a valid id) at pads.
        mask: `[B, T]`, bool, True = real; None means that all are.
        width: Numbers that the function reads or writes for a token, by which it is judged whether leaving pads out pays.

    Returns:
        `[B, T, V]`, right at real tokens. At pads it is 0, or where pads are few or the host does not know them, what the
        function makes of what stands there.
    """
    if mask is None or mask.numel() * width < _LITTLE_WORK or not host_can_read(mask):
        return function(x)
    num_tokens = int(mask.sum())
    num_pads = mask.numel() - num_tokens
    if not num_tokens or num_pads <= _FEW_PADS * mask.numel() or num_pads * width < _LITTLE_WORK:
        return function(x)
    places = mask.flatten().nonzero()[:, 0]  # [N]
    y = function(x.flatten(0, 1).index_select(0, places))  # [N, V]
    return y.new_zeros(mask.numel(), y.shape[1]).index_copy(0, places, y).unflatten(0, mask.shape)
