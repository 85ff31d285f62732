"""torch's own recurrent kernels over a batch under any mask, in one direction or both, wherever they run."""

from collections.abc import Callable, Sequence

import torch

from .cells import CellLayout, cell_layout, from_cells, to_cells
from .gru_gradient import gru_over_cells
from .segments import Segment, cheapest_segments, exact_segments, quantile_segments
from .tensor_checks import host_can_read

KERNELS: dict[str, Callable[..., tuple[torch.Tensor, ...]]] = {"lstm": torch.lstm, "gru": torch.gru}

# torch's weight_ih, weight_hh, bias_ih and bias_hh of one layer and one direction.
Weights = Sequence[torch.Tensor]


def arrange(
    rnn_type: str, mask: torch.Tensor, directions: int, width: int, num_segments: int | None = None
) -> CellLayout | None:
    """Choose how a batch is brought before the kernel.

    On a CPU time is cut into segments, where that pays. Elsewhere the lengths are not known without a host sync: one segment
    of all rows and columns is the form that needs none.

    Args:
        rnn_type: "lstm" or "gru".
        mask: `[B, T]`, bool, True = real, in any arrangement; T >= 1.
        directions: 1, or 2 for a bidirectional layer.
        width: Number of units of one direction, on which the cost of a segment depends.
        num_segments: Number of segments; None takes what costs least. More than one reads the lengths on the host.

    Returns:
        The arrangement; None if every token is real and the kernel can take the batch as it is.
    """
    lengths = mask.sum(dim=1)  # [B]
    if not host_can_read(mask) and num_segments in (None, 1):
        return cell_layout(mask, lengths, directions)
    longest_first = sorted(lengths.tolist(), reverse=True)
    num_tokens = sum(longest_first)
    if not longest_first:
        return None
    full = longest_first[-1] == mask.shape[1]
    if full and host_can_read(mask) and not (rnn_type == "gru" and torch.is_grad_enabled()):
        return None
    longest_first[0] = max(1, longest_first[0])  # of rows without a token one is run, so that every weight takes part
    if num_segments is not None:
        segments = quantile_segments(longest_first, num_segments)
    elif _is_gru_on_cpu(rnn_type, mask):
        segments = exact_segments(longest_first)
    else:
        segments = cheapest_segments(longest_first, width)
    return cell_layout(mask, lengths, directions, segments, num_tokens)


def run_over_cells(rnn_type: str, x: torch.Tensor, weights: Sequence[Weights], cells: CellLayout | None) -> torch.Tensor:
    """Run one recurrent layer over the real tokens of each row, from a zero state.

    Args:
        rnn_type: "lstm" or "gru".
        x: `[B, T, input_size]`; what stands at pads is not read.
        weights: The weights of the forward direction and, for a bidirectional layer, of the backward one.
        cells: The arrangement of the batch by `arrange`.

    Returns:
        The states `[B, T, D * H]`, those of the forward direction first; 0 at pads.

    Numerics:
        Where a CPU has no kernel of the dtype of autocast, the recurrence runs in the dtype of its weights.
    """
    if _lacks_kernel(rnn_type, x):
        with torch.autocast("cpu", enabled=False):
            return run_over_cells(rnn_type, x.to(weights[0][0].dtype), weights, cells)
    if cells is None:
        return _run(rnn_type, x, weights, len(x), batch_first=True)[0]
    inputs = to_cells(x, cells)  # [D, N + 1, input_size]
    width = weights[0][1].shape[1]
    if _is_gru_on_cpu(rnn_type, x):
        first = x.new_zeros(len(inputs), cells.segments[0].rows, width)
        parts = [[states] for states in gru_over_cells(inputs[:, :-1], weights, cells.segments, first)]
    else:
        each = zip(inputs[:, :-1], weights, strict=True)
        parts = [_run_direction(rnn_type, direction, own, cells.segments)[0] for direction, own in each]
    at_pads = parts[0][0].new_zeros(1, width)  # under autocast not of the dtype of the input
    states = torch.cat([part for direction in parts for part in (*direction, at_pads)])
    return from_cells(states.view(len(inputs), -1, width), cells)


def run_from_state(
    rnn_type: str, x: torch.Tensor, weights: Weights, segments: Sequence[Segment], first: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Run one recurrent layer in one direction over inputs that already stand in cells, from a state that is given.

    Args:
        rnn_type: "lstm" or "gru".
        x: `[N, input_size]`, the cells of the segments, one step after the other.
        weights: The weights of the layer.
        segments: Steps and rows of each segment; rows never increase.
        first: The state of each row before its first step, `[R, H]`; of an LSTM also its cell.

    Returns:
        The states `[N, H]`, and the state of the rows of the last segment after its last step, as `first`.

    Numerics:
        As `run_over_cells`.
    """
    if _lacks_kernel(rnn_type, x):
        with torch.autocast("cpu", enabled=False):
            x, *first = (tensor.to(weights[0].dtype) for tensor in (x, *first))
            return run_from_state(rnn_type, x, weights, segments, first)
    if _is_gru_on_cpu(rnn_type, x):
        states = gru_over_cells(x[None], [weights], segments, first[0][None])[0]
        return states, (states[len(states) - segments[-1].rows :],)
    parts, last = _run_direction(rnn_type, x, weights, segments, [tensor[None] for tensor in first])
    return torch.cat(parts), tuple(tensor[0] for tensor in last)


def _run_direction(
    rnn_type: str,
    x: torch.Tensor,
    weights: Weights,
    segments: Sequence[Segment],
    state: list[torch.Tensor] | None = None,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Run the segments one after the other, each from the state that the one before left in its rows.

    Returns:
        The states of each segment, `[cells, H]`, and the state after the last; states are `[1, rows, H]`.
    """
    parts = []
    for (steps, rows), part in zip(segments, x.split([steps * rows for steps, rows in segments]), strict=True):
        if state is not None:
            state = [tensor[:, :rows] for tensor in state]
        output, *state = _run(rnn_type, part.view(steps, rows, x.shape[1]), [weights], rows, state)
        parts.append(output.flatten(0, 1))
    return parts, state or []


def _run(
    rnn_type: str,
    x: torch.Tensor,
    weights: Sequence[Weights],
    rows: int,
    state: list[torch.Tensor] | None = None,
    batch_first: bool = False,
) -> tuple[torch.Tensor, ...]:
    """Call the kernel of one layer: the states of all steps, then the last state (of an LSTM, and its cell)."""
    if state is None:
        zero = x.new_zeros(len(weights), rows, weights[0][1].shape[1])
        state = [zero, zero] if rnn_type == "lstm" else [zero]
    flat = [weight for direction in weights for weight in direction]
    first = state if rnn_type == "lstm" else state[0]
    # A kernel that is not told to train keeps nothing for a gradient, whatever the mode of the model.
    return KERNELS[rnn_type](x, first, flat, True, 1, 0.0, torch.is_grad_enabled(), len(weights) == 2, batch_first)


def _is_gru_on_cpu(rnn_type: str, tensor: torch.Tensor) -> bool:
    """Tell whether torch has no fused kernel, so that `gru_over_cells` is the fast way."""
    return rnn_type == "gru" and host_can_read(tensor)


def _lacks_kernel(rnn_type: str, x: torch.Tensor) -> bool:
    """Tell whether a CPU under autocast has no recurrent kernel for the dtype of autocast."""
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return False
    return rnn_type == "gru" or not _cpu_has_kernel(torch.get_autocast_dtype("cpu"))


def _cpu_has_kernel(dtype: torch.dtype) -> bool:
    """Tell whether oneDNN has a recurrent kernel for a 16-bit dtype on this CPU."""
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_fp16_supported()
