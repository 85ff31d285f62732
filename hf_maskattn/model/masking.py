"""The one door for masks: whatever a caller has becomes a boolean tensor, True where a token is real."""

from typing import NamedTuple

import torch
from torch.nn.functional import pad

from .tensor_checks import check_values, host_can_read


def real_token_mask(
    shape: torch.Size,
    device: torch.device,
    attention_mask: torch.Tensor | None = None,
    lengths: torch.Tensor | None = None,
) -> torch.Tensor:
    """Tell for every token whether it is real.

    Args:
        shape: `(B, T)`, batch size and padded time of the inputs.
        device: Where the mask is needed.
        attention_mask: `[B, T]`, bool, integer or float, 1 = real, 0 = padding, in any arrangement: right padding, left
            padding, holes, rows without a real token.
        lengths: `[B]`, integer, number of real tokens of each right-padded row. An alternative to `attention_mask`;
            with neither, every token is real.

    Returns:
        `[B, T]`, bool, True = real.

    Raises:
        ValueError: If both are given, a shape does not fit, or a value is not 0 or 1 (for lengths: not in 0..T).
        TypeError: If `lengths` does not hold integers.
    """
    batch_size, time = shape
    if attention_mask is not None and lengths is not None:
        raise ValueError("`attention_mask` and `lengths` were both given: they say the same thing, pass one of them.")
    if lengths is not None:
        return _mask_from_lengths(lengths, batch_size, time, device)
    if attention_mask is None:
        return torch.ones(batch_size, time, dtype=torch.bool, device=device)
    if attention_mask.shape != shape:
        raise ValueError(
            f"`attention_mask` has shape {list(attention_mask.shape)}, the inputs are {[batch_size, time]} tokens: "
            "pass one 0 or 1 for each token, as tokenizers and collators return it."
        )
    attention_mask = attention_mask.to(device)
    if attention_mask.dtype == torch.bool:
        return attention_mask
    valid = (attention_mask == 0) | (attention_mask == 1)
    check_values(
        valid,
        lambda: (
            f"`attention_mask` holds {attention_mask[~valid][0].item()}: only 1 (real token) and 0 (padding) mean "
            "something here; additive masks such as 0 and -inf do not."
        ),
        "attention_mask holds a value other than 0 and 1",
    )
    return attention_mask.bool()


def _mask_from_lengths(lengths: torch.Tensor, batch_size: int, time: int, device: torch.device) -> torch.Tensor:
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise TypeError(f"`lengths` has dtype {lengths.dtype}: pass whole numbers, such as torch.int64.")
    if lengths.shape != (batch_size,):
        raise ValueError(
            f"`lengths` has shape {list(lengths.shape)}, the batch has {batch_size} rows: pass one number for each row."
        )
    lengths = lengths.to(device)
    valid = (lengths >= 0) & (lengths <= time)
    check_values(
        valid,
        lambda: f"`lengths` holds {lengths[~valid][0].item()}, a row of this batch has 0 to {time} tokens.",
        "lengths holds a value outside of 0..T",
    )
    return torch.arange(time, device=device) < lengths[:, None]  # [B, T]


class RealColumns(NamedTuple):
    """The columns of a batch from the first to the last in which any row has a real token.

    Attributes:
        start: The first of them.
        stop: The one behind the last.
        time: Number T of columns of the batch.
    """

    start: int
    stop: int
    time: int

    def cut(self, x: torch.Tensor) -> torch.Tensor:
        """Leave the other columns out: `[B, T, ...]` -> `[B, stop - start, ...]`."""
        return x[:, self.start : self.stop]

    def widen(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        """Put the other columns back as zeros, at dimension `dim` of `x`."""
        if self.stop - self.start == self.time:
            return x
        return pad(x, (*[0, 0] * (x.dim() - 1 - dim % x.dim()), self.start, self.time - self.stop))

    def narrow(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        """Take the other columns out again: the inverse of `widen`."""
        if self.stop - self.start == self.time:
            return x
        return pad(x, (*[0, 0] * (x.dim() - 1 - dim % x.dim()), -self.start, self.stop - self.time))


def real_columns(mask: torch.Tensor) -> RealColumns:
    """Find the columns in which a batch has its real tokens, so that nothing is computed for the others.

    Args:
        mask: `[B, T]`, bool, True = real.

    Returns:
        The columns: at least one if T >= 1, and all of them where they are not known without a host sync.
    """
    time = mask.shape[1]
    if not host_can_read(mask) or not time:
        return RealColumns(0, time, time)
    real = mask.any(dim=0).tolist()
    if True not in real:
        return RealColumns(0, 1, time)
    return RealColumns(real.index(True), time - real[::-1].index(True), time)
