"""Masks: which positions of a batch are tokens, and the softmax and other functions over these alone."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn import functional

_FEW_PADDING = 1 / 4
_LITTLE_WORK = 2**16


def build_token_mask(
    shape: torch.Size,
    device: torch.device,
    attention_mask: torch.Tensor | None = None,
    lengths: torch.Tensor | None = None,
) -> torch.Tensor:
    """Convert whatever mask a caller has to a boolean tensor, True where a position is a token.

    Args:
        shape: `(B, T)`, batch size and padded time of the inputs.
        device: Where the mask is needed.
        attention_mask: `[B, T]`, bool, integer or float, 1 = token, 0 = padding, in any arrangement: right padding, left
            padding, holes, rows without a token.
        lengths: `[B]`, integer, number of tokens of each right-padded row. An alternative to `attention_mask`; with neither,
            there is no padding.

    Returns:
        `[B, T]`, bool, True = token.

    Raises:
        ValueError: If both are given, a shape does not fit, or a value is not 0 or 1 (for lengths: not in 0..T).
        TypeError: If `lengths` does not hold integers.
    """
    batch_size, time = shape
    if attention_mask is not None and lengths is not None:
        raise ValueError("Only one of `attention_mask` and `lengths` must be given, got both. Remove one of them.")
    if lengths is not None:
        return _mask_from_lengths(lengths, batch_size, time, device)
    if attention_mask is None:
        return torch.ones(batch_size, time, dtype=torch.bool, device=device)
    if attention_mask.shape != shape:
        raise ValueError(
            f"`attention_mask` must have shape {[batch_size, time]} as the inputs, got {list(attention_mask.shape)}. "
            "Pass one 0 or 1 for each position, as tokenizers and collators return it."
        )
    attention_mask = attention_mask.to(device)
    if attention_mask.dtype == torch.bool:
        return attention_mask
    is_valid = (attention_mask == 0) | (attention_mask == 1)
    check_values(
        is_valid,
        lambda: (
            f"`attention_mask` must hold only 1 (token) and 0 (padding), got {attention_mask[~is_valid][0].item()}. "
            "Additive masks such as 0 and -inf are not supported."
        ),
        "attention_mask holds a value other than 0 and 1",
    )
    return attention_mask.bool()


def _mask_from_lengths(lengths: torch.Tensor, batch_size: int, time: int, device: torch.device) -> torch.Tensor:
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise TypeError(f"`lengths` must have an integer dtype such as torch.int64, got {lengths.dtype}.")
    if lengths.shape != (batch_size,):
        raise ValueError(f"`lengths` must have shape {[batch_size]}, one number for each row, got {list(lengths.shape)}.")
    lengths = lengths.to(device)
    is_valid = (lengths >= 0) & (lengths <= time)
    check_values(
        is_valid,
        lambda: f"`lengths` must be in [0, {time}], the columns of this batch, got {lengths[~is_valid][0].item()}.",
        "lengths holds a value outside of 0..T",
    )
    return torch.arange(time, device=device) < lengths[:, None]  # [B, T]


class TokenColumns(NamedTuple):
    """The columns of a batch from the first to the last in which any row has a token.

    Attributes:
        start: The first of them.
        stop: The one after the last.
        time: Number T of columns of the batch.
    """

    start: int
    stop: int
    time: int

    def all_columns(self) -> "TokenColumns":
        """Return all columns of the batch."""
        return TokenColumns(0, self.time, self.time)

    def crop(self, x: torch.Tensor) -> torch.Tensor:
        """Remove the other columns: `[B, T, ...]` -> `[B, stop - start, ...]`."""
        return x[:, self.start : self.stop]

    def crop_labels(self, labels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Remove the other columns of labels; raises if they do not have the shape `[B, T]` of the mask."""
        if labels.shape != mask.shape:
            raise ValueError(f"`labels` must have shape {list(mask.shape)}, got {list(labels.shape)}.")
        return self.crop(labels)

    def pad(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        """Add the other columns as zeros, at dimension `dim` of `x`."""
        if self.stop - self.start == self.time:
            return x
        trailing = x.dim() - 1 - dim % x.dim()
        return functional.pad(x, (*[0, 0] * trailing, self.start, self.time - self.stop))


def find_token_columns(mask: torch.Tensor) -> TokenColumns:
    """Find the columns in which a batch has its tokens, so that nothing is computed for the others.

    Args:
        mask: `[B, T]`, bool, True = token.

    Returns:
        The columns: at least one if T >= 1, and all of them where they are not known without a host sync.
    """
    time = mask.shape[1]
    if not is_host_readable(mask) or not time:
        return TokenColumns(0, time, time)
    has_token = mask.any(dim=0).tolist()
    if True not in has_token:
        return TokenColumns(0, 1, time)
    return TokenColumns(has_token.index(True), time - has_token[::-1].index(True), time)


def apply_to_tokens(
    function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, mask: torch.Tensor | None, width: int
) -> torch.Tensor:
    """Apply a function of single tokens to the tokens of a batch, without its padding where that pays.

    Args:
        function: Maps `[..., W]` to `[..., V]`, or ids `[...]` to `[..., V]`, each token on its own.
        x: `[B, T, W]` or, for ids, `[B, T]`; finite (or a valid id) at padding.
        mask: `[B, T]`, bool, True = token; None means that there is no padding.
        width: Numbers that the function reads or writes for a token, which decides whether leaving padding out pays.

    Returns:
        `[B, T, V]`, the function at tokens. At padding it is 0, or where there is little padding or the host does not know it,
        the function of what stands there.
    """
    if mask is None or mask.numel() * width < _LITTLE_WORK or not is_host_readable(mask):
        return function(x)
    num_tokens = int(mask.sum())
    num_padding = mask.numel() - num_tokens
    if not num_tokens or num_padding <= _FEW_PADDING * mask.numel() or num_padding * width < _LITTLE_WORK:
        return function(x)
    positions = mask.flatten().nonzero()[:, 0]  # [N]
    y = function(x.flatten(0, 1).index_select(0, positions))  # [N, V]
    return y.new_zeros(mask.numel(), y.shape[1]).index_copy(0, positions, y).unflatten(0, mask.shape)


def is_host_readable(tensor: torch.Tensor) -> bool:
    """Whether Python may read the values of `tensor` for free: on a CPU, outside of compilation and export.

    A subclass of tensors, such as torch's fake tensors, may have no values to read.
    """
    return tensor.device.type == "cpu" and type(tensor) is torch.Tensor and not torch.compiler.is_compiling()


def check_values(is_valid: torch.Tensor, message: Callable[[], str], short_message: str) -> None:
    """Raise where an element of `is_valid` is False, without making an accelerator wait for the host.

    On a CPU the error is raised here. On a CUDA device the check is queued behind the work before it, and a failure
    surfaces as the device-side assertion `short_message`; other devices and compiled graphs are not checked.

    Args:
        is_valid: Boolean tensor of any shape, True where the value is valid.
        message: Builds the full error text; called only after a failure, so that it may read values.
        short_message: The text of the device-side assertion.

    Raises:
        ValueError: With `message()`, on a CPU.
    """
    if is_host_readable(is_valid):
        if not bool(is_valid.all()):
            raise ValueError(message())
    elif is_valid.is_cuda and not torch.compiler.is_compiling():
        torch._assert_async(is_valid.all(), short_message)


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Convert a 16-bit tensor to float32; leave float32 and float64 as they are.

    Sums of exponentials and of losses need 32 bits.
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def masked_softmax(scores: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Normalize scores over the tokens of the last axis.

    Args:
        scores: `[..., T]`, floating point.
        mask: Bool, broadcastable to `scores`, True = token; None means that there is no padding.

    Returns:
        Weights `[..., T]` of the dtype of `scores`: >= 0, exactly 0 at padding, summing to one over the tokens; all 0 where
        there is no token.

    Numerics:
        Padding is filled with the lowest finite number instead of minus infinity, so that a row without a token has no NaN
        in either direction; 16-bit scores are normalized in 32 bits, and float16 scores that overflowed stay finite.

    Source:
        Method 1 of masking, before the softmax; Bahdanau et al. 2015 (arXiv:1409.0473), section 3.1, for the weights.
    """
    wide = _to_finite_float32(scores)
    if mask is None:
        return wide.softmax(dim=-1).to(scores.dtype)
    is_padding = ~mask
    filled = wide.masked_fill(is_padding, torch.finfo(wide.dtype).min)
    return filled.softmax(dim=-1).masked_fill(is_padding, 0).to(scores.dtype)


def segment_softmax(scores: torch.Tensor, segments: torch.Tensor, num_segments: int) -> torch.Tensor:
    """Normalize the scores of a flat list of tokens within the segment (the row of the batch) that each belongs to.

    Args:
        scores: `[N, ...]`, floating point, one entry for each token of the batch.
        segments: `[N]`, int64, the segment of each token, in 0..num_segments-1.
        num_segments: Number of segments; one may be empty.

    Returns:
        Weights `[N, ...]` of the dtype of `scores`, >= 0, summing to one within each segment that has a token.

    Numerics:
        The highest score of each segment is subtracted first; 16-bit scores are treated as in `masked_softmax`.
    """
    wide = _to_finite_float32(scores)
    shape = (num_segments, *wide.shape[1:])
    index = segments.view(-1, *[1] * (wide.dim() - 1)).expand_as(wide)
    highest = wide.new_full(shape, -torch.inf).scatter_reduce(0, index, wide.detach(), "amax")
    powers = (wide - highest[segments]).exp()
    totals = powers.new_zeros(shape).index_add(0, segments, powers)
    return (powers / totals[segments]).to(scores.dtype)


def _to_finite_float32(scores: torch.Tensor) -> torch.Tensor:
    """Convert 16-bit scores to float32, those that overflowed float16 to its largest number: infinity would give NaN."""
    wide = at_least_float32(scores)
    if scores.dtype == torch.float16:
        largest = torch.finfo(torch.float16).max
        wide = wide.clamp(-largest, largest)
    return wide


def drop_tokens(mask: torch.Tensor, probability: float) -> torch.Tensor:
    """Drop tokens at random before the softmax, so that the weights of those that are kept still sum to one.

    Args:
        mask: `[..., T]`, bool, True = token.
        probability: Probability of each token to be dropped, in 0..1.

    Returns:
        `[..., T]`, bool. A row that would lose all of its tokens keeps them all.
    """
    kept = mask & (torch.rand(mask.shape, device=mask.device) >= probability)
    return torch.where(kept.any(dim=-1, keepdim=True), kept, mask)
