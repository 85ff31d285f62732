"""torch's own recurrent kernels over a batch under any mask, in one direction or both, eager or as one operator of a graph."""

from collections.abc import Callable, Sequence

import torch

from .masking import is_host_readable
from .packing import (
    PackedLayout,
    TimeChunk,
    build_packed_layout,
    pack_tokens,
    split_time_at_quantiles,
    split_time_cheaply,
    split_time_exactly,
    unpack_tokens,
)
from .recurrent_autograd import packed_gru

KERNELS: dict[str, Callable[..., tuple[torch.Tensor, ...]]] = {"lstm": torch.lstm, "gru": torch.gru}

DirectionParameters = Sequence[torch.Tensor]
"""torch's weight_ih, weight_hh, bias_ih and bias_hh of one layer in one direction."""

OPERATOR_NAME = "hf_maskattn::recurrence_v1"
"""To be counted up with any change of signature or meaning: checkpoints carry this file, and a process may load several."""


def choose_layout(
    rnn_type: str, mask: torch.Tensor, directions: int, width: int, num_time_chunks: int | None = None
) -> PackedLayout | None:
    """Choose the layout in which the kernel reads a batch.

    On a CPU time is cut into chunks where that pays. On an accelerator the lengths are not known without a host sync: one
    chunk of all rows and columns needs none.

    Args:
        rnn_type: "lstm" or "gru".
        mask: `[B, T]`, bool, True = token, in any arrangement; T >= 1.
        directions: 1, or 2 for a bidirectional layer.
        width: Number of units of one direction, on which the cost of a chunk depends.
        num_time_chunks: Number of chunks; None selects the cheapest. More than one reads the lengths on the host.

    Returns:
        The layout; None if there is no padding and the kernel can read the batch as it is.
    """
    lengths = mask.sum(dim=1)  # [B]
    if not is_host_readable(mask) and num_time_chunks in (None, 1):
        return build_packed_layout(mask, lengths, directions)
    longest_first = sorted(lengths.tolist(), reverse=True)
    num_tokens = sum(longest_first)
    if not longest_first:
        return None
    has_no_padding = longest_first[-1] == mask.shape[1]
    if has_no_padding and is_host_readable(mask) and not (rnn_type == "gru" and torch.is_grad_enabled()):
        return None
    longest_first[0] = max(1, longest_first[0])  # if all rows are empty one is run, so that every weight is used
    if num_time_chunks is not None:
        time_chunks = split_time_at_quantiles(longest_first, num_time_chunks)
    elif _is_gru_on_cpu(rnn_type, mask):
        time_chunks = split_time_exactly(longest_first)
    else:
        time_chunks = split_time_cheaply(longest_first, width)
    return build_packed_layout(mask, lengths, directions, time_chunks, num_tokens)


def run_layer(
    rnn_type: str, x: torch.Tensor, parameters: Sequence[DirectionParameters], layout: PackedLayout | None
) -> torch.Tensor:
    """Run one recurrent layer over the tokens of each row, from a zero state.

    Args:
        rnn_type: "lstm" or "gru".
        x: `[B, T, input_size]`; what stands at padding is not read.
        parameters: The parameters of the forward direction and, for a bidirectional layer, of the backward one.
        layout: The layout of the batch by `choose_layout`.

    Returns:
        The states `[B, T, D * H]`, those of the forward direction first; 0 at padding.

    Numerics:
        Where a CPU has no kernel for the dtype of autocast, the recurrence runs in the dtype of its weights.
    """
    if not _lacks_autocast_kernel(rnn_type, x):
        return _run_layer(rnn_type, x, parameters, layout)
    with torch.autocast("cpu", enabled=False):
        return _run_layer(rnn_type, x.to(parameters[0][0].dtype), parameters, layout)


def _run_layer(
    rnn_type: str, x: torch.Tensor, parameters: Sequence[DirectionParameters], layout: PackedLayout | None
) -> torch.Tensor:
    if layout is None:
        return _call_kernel(rnn_type, x, parameters, len(x), batch_first=True)[0]
    packed = pack_tokens(x, layout)  # [D, N + 1, input_size]
    directions, width = len(packed), parameters[0][1].shape[1]
    inputs = packed[:, :-1]  # [D, N, input_size]
    if _is_gru_on_cpu(rnn_type, x):
        initial_state = x.new_zeros(directions, layout.time_chunks[0].rows, width)
        states = [[direction_states] for direction_states in packed_gru(inputs, parameters, layout.time_chunks, initial_state)]
    else:
        states = [
            _run_direction(rnn_type, direction_input, own_parameters, layout.time_chunks)[0]
            for direction_input, own_parameters in zip(inputs, parameters, strict=True)
        ]
    padding_state = states[0][0].new_zeros(1, width)  # under autocast not of the dtype of the input
    flat = torch.cat([part for direction_states in states for part in (*direction_states, padding_state)])
    return unpack_tokens(flat.view(directions, -1, width), layout)


def run_packed_layer(
    rnn_type: str,
    x: torch.Tensor,
    parameters: DirectionParameters,
    time_chunks: Sequence[TimeChunk],
    initial_state: Sequence[torch.Tensor],
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Run one recurrent layer in one direction over packed inputs, from a given state.

    Args:
        rnn_type: "lstm" or "gru".
        x: `[N, input_size]`, the positions of the chunks, one step after the other.
        parameters: The parameters of the layer.
        time_chunks: Steps and rows of each chunk; the number of rows never increases.
        initial_state: The state of each row before its first step, `[R, H]`; for an LSTM its cell as well.

    Returns:
        The states `[N, H]`, and the final state of the rows of the last chunk, as `initial_state`.

    Numerics:
        As `run_layer`.
    """
    if not _lacks_autocast_kernel(rnn_type, x):
        return _run_packed_layer(rnn_type, x, parameters, time_chunks, initial_state)
    dtype = parameters[0].dtype
    with torch.autocast("cpu", enabled=False):
        initial_state = [tensor.to(dtype) for tensor in initial_state]
        return _run_packed_layer(rnn_type, x.to(dtype), parameters, time_chunks, initial_state)


def _run_packed_layer(
    rnn_type: str,
    x: torch.Tensor,
    parameters: DirectionParameters,
    time_chunks: Sequence[TimeChunk],
    initial_state: Sequence[torch.Tensor],
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    if _is_gru_on_cpu(rnn_type, x):
        states = packed_gru(x[None], [parameters], time_chunks, initial_state[0][None])[0]
        return states, (states[len(states) - time_chunks[-1].rows :],)
    chunks, final_state = _run_direction(rnn_type, x, parameters, time_chunks, [tensor[None] for tensor in initial_state])
    return torch.cat(chunks), tuple(tensor[0] for tensor in final_state)


def _run_direction(
    rnn_type: str,
    x: torch.Tensor,
    parameters: DirectionParameters,
    time_chunks: Sequence[TimeChunk],
    state: list[torch.Tensor] | None = None,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Run the chunks one after the other, each from the state in which the previous one left its rows.

    Returns:
        The states of each chunk, `[steps * rows, H]`, and the final state, whose tensors are `[1, rows, H]`.
    """
    outputs = []
    chunk_inputs = x.split([steps * rows for steps, rows in time_chunks])
    for (steps, rows), chunk_input in zip(time_chunks, chunk_inputs, strict=True):
        if state is not None:
            state = [tensor[:, :rows] for tensor in state]
        output, *state = _call_kernel(rnn_type, chunk_input.view(steps, rows, x.shape[1]), [parameters], rows, state)
        outputs.append(output.flatten(0, 1))
    return outputs, state or []


def _call_kernel(
    rnn_type: str,
    x: torch.Tensor,
    parameters: Sequence[DirectionParameters],
    rows: int,
    state: list[torch.Tensor] | None = None,
    batch_first: bool = False,
) -> tuple[torch.Tensor, ...]:
    """Call the kernel of one layer: the states of all steps, then the final state (for an LSTM h and c)."""
    if state is None:
        zero = x.new_zeros(len(parameters), rows, parameters[0][1].shape[1])
        state = [zero, zero] if rnn_type == "lstm" else [zero]
    flat = [parameter for direction in parameters for parameter in direction]
    hx = state if rnn_type == "lstm" else state[0]
    bidirectional = len(parameters) == 2
    # A kernel that does not train keeps nothing for a gradient, whatever the mode of the model.
    train = torch.is_grad_enabled()
    return KERNELS[rnn_type](x, hx, flat, True, 1, 0.0, train, bidirectional, batch_first)


def _is_gru_on_cpu(rnn_type: str, tensor: torch.Tensor) -> bool:
    """Whether torch has no fused kernel, so that `packed_gru` is faster."""
    return rnn_type == "gru" and is_host_readable(tensor)


def _lacks_autocast_kernel(rnn_type: str, x: torch.Tensor) -> bool:
    """Whether a CPU under autocast has no recurrent kernel for the dtype of autocast."""
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return False
    return rnn_type == "gru" or not _cpu_has_kernel(torch.get_autocast_dtype("cpu"))


def _cpu_has_kernel(dtype: torch.dtype) -> bool:
    """Whether oneDNN has a recurrent kernel for a 16-bit dtype on this CPU."""
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_fp16_supported()


def recurrence_operator(
    rnn_type: str,
    x: torch.Tensor,
    mask: torch.Tensor,
    parameters: list[list[torch.Tensor]],
    num_time_chunks: int | None = None,
) -> torch.Tensor:
    """Run one layer as `run_layer` does, as one operator without gradient; the result has the dtype of the weights.

    Traced into, torch's recurrent kernels would freeze the number of steps. As one operator any batch size and time stay
    open, and an exporter can put the native node of its format in its place.
    """
    flat = [parameter for direction in parameters for parameter in direction]
    return torch.ops.hf_maskattn.recurrence_v1(x, mask, flat, rnn_type, num_time_chunks or 0)


def _register_operator() -> None:
    """Define the operator, once in a process: this file may be loaded twice, installed and next to weights."""
    namespace, name = OPERATOR_NAME.split("::")
    if hasattr(getattr(torch.ops, namespace), name):
        return

    @torch.library.custom_op(OPERATOR_NAME, mutates_args=())
    def recurrence(
        x: torch.Tensor, mask: torch.Tensor, weights: list[torch.Tensor], rnn_type: str, num_segments: int
    ) -> torch.Tensor:
        parameters = [weights[start : start + 4] for start in range(0, len(weights), 4)]
        width = weights[1].shape[1]
        with torch.autocast(x.device.type, enabled=False):
            layout = choose_layout(rnn_type, mask, len(parameters), width, num_segments or None)
            return run_layer(rnn_type, x.to(weights[0].dtype), parameters, layout).contiguous()

    @recurrence.register_fake
    def _(x, mask, weights, rnn_type, num_segments):
        directions, width = len(weights) // 4, weights[1].shape[1]
        return x.new_empty(*x.shape[:2], directions * width, dtype=weights[0].dtype)


_register_operator()
