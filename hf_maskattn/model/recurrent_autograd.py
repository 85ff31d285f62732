"""The gradients of the LSTM and the GRU in torch's form, with one matrix product a step.

Autograd records every operation of every step; here a step of the backward pass is one matrix product. Forward, a step is one
product of the previous state and the gates, whose activations are kept. Backward, the derivatives of the gates are elementwise
in the activations and are computed once for all steps; only what is linear in the gradient of the state is left for the loop.
The gradients of the weights are one product over all steps at the end.
"""

from collections.abc import Sequence

import torch

from .packing import TimeChunk

sigmoid_backward, tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward

_SMALL_STEP = 2**10
"""Numbers in the state of all rows and directions below which a step costs less in torch's kernel, its gates computed twice."""

_WIDE = 384
"""Units of a direction from which two directions cost less one after the other: the cache holds the weights of one."""


def gru_step(
    input_gates: torch.Tensor, hidden_gates: torch.Tensor, state: Sequence[torch.Tensor], out: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Compute one step of a GRU from the products of its weights.

    With `input_gates` = W_i x + b_i and `hidden_gates` = W_h h + b_h, each for the gates r, z and n:
    r = sigmoid(i_r + h_r), z = sigmoid(i_z + h_z), n = tanh(i_n + r * h_n), h' = (1 - z) * n + z * h.

    Args:
        input_gates: `[..., rows, 3 H]`; overwritten by the activations r, z and n. A leading dimension, if there is one, holds
            the directions of a layer.
        hidden_gates: `[..., rows, 3 H]`; its last third h_n is needed for the gradient.
        state: The previous state h, `[..., rows, H]`.
        out: Where the next state is written, `[..., rows, H]`.

    Returns:
        The next state h'.

    Source:
        Cho et al. 2014 (arXiv:1406.1078), in torch's form.
    """
    width = state[0].shape[-1]
    reset, update, new = input_gates.chunk(3, dim=-1)
    hidden_reset_update, hidden_new = hidden_gates.split([2 * width, width], dim=-1)
    input_gates.narrow(-1, 0, 2 * width).add_(hidden_reset_update).sigmoid_()
    new.addcmul_(reset, hidden_new).tanh_()
    return [torch.lerp(new, state[0], update, out=out[0])]


def lstm_step(
    input_gates: torch.Tensor, hidden_gates: torch.Tensor, state: Sequence[torch.Tensor], out: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Compute one step of an LSTM from the products of its weights.

    With `input_gates` = W_i x + b_i and `hidden_gates` = W_h h + b_h, each for the gates i, f, g and o:
    i, f, o = sigmoid(...), g = tanh(...), c' = f * c + i * g, h' = o * tanh(c').

    Args:
        input_gates: `[rows, 4 H]`; overwritten by the activations i, f, g and o.
        hidden_gates: `[rows, 4 H]`; its last quarter is overwritten by tanh(c'), for the gradient.
        state: The previous h and c, `[rows, H]` each.
        out: Where the next h and c are written, `[rows, H]` each.

    Returns:
        The next h' and c'.

    Source:
        Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000, in torch's form.
    """
    width = state[0].shape[1]
    input_gate, forget_gate, cell_gate, output_gate = input_gates.chunk(4, dim=1)
    input_gates.add_(hidden_gates)
    input_gates.narrow(1, 0, 2 * width).sigmoid_()
    cell_gate.tanh_()
    output_gate.sigmoid_()
    cell = torch.mul(state[1], forget_gate, out=out[1]).addcmul_(input_gate, cell_gate)
    tanh_cell = torch.tanh(cell, out=hidden_gates.narrow(1, 3 * width, width))
    return [torch.mul(output_gate, tanh_cell, out=out[0]), cell]


class GRUBackward:
    """The derivatives of all steps of a GRU, computed at once, and applied step by step.

    Args:
        gates: `[..., N, 3 H]`, the activations r, z and n of all steps.
        hidden_new: `[..., N, H]`, h_n = W_hn h + b_hn.
        previous_states: The states h before the steps, `[..., N, H]`.
        grad_gates: `[..., N, 4 H]`, where the gradients before the nonlinearities are written, side by side for h_n, r, z and
            i_n. The first three quarters are those of the hidden gates in the order n, r, z; the last three those of the
            input gates in the order r, z, n. They are final for a step once `step` has been called for it.
        batch_sizes: Number of rows of each step.
    """

    def __init__(
        self,
        gates: torch.Tensor,
        hidden_new: torch.Tensor,
        previous_states: Sequence[torch.Tensor],
        grad_gates: torch.Tensor,
        batch_sizes: Sequence[int],
    ):
        reset, update, new = gates.chunk(3, dim=-1)
        grad_hidden_new, grad_reset, grad_update, grad_input_new = grad_gates.chunk(4, dim=-1)
        torch.sub(previous_states[0], new, out=grad_update)
        grad_update.copy_(sigmoid_backward(grad_update, update))  # (h - n) z (1 - z)
        grad_input_new.copy_(tanh_backward(1 - update, new))  # (1 - z) (1 - n^2)
        grad_reset.copy_(sigmoid_backward(grad_input_new * hidden_new, reset))  # ... h_n r (1 - r)
        torch.mul(grad_input_new, reset, out=grad_hidden_new)  # ... r
        self.grad_gates = grad_gates.unflatten(-1, (4, -1)).split(batch_sizes, dim=-3)
        self.updates = update.split(batch_sizes, dim=-2)

    def step(self, step: int, grad_state: Sequence[torch.Tensor], grad_previous: Sequence[torch.Tensor]) -> None:
        """Go back through one step; to be called from the last step to the first.

        Args:
            step: Number of the step.
            grad_state: Gradient of the next state h', `[..., rows, H]`.
            grad_previous: Gradient of the previous state h, to which its elementwise part is added.
        """
        self.grad_gates[step].mul_(grad_state[0].unsqueeze(-2))
        grad_previous[0].addcmul_(grad_state[0], self.updates[step])


class LSTMBackward:
    """The derivatives of all steps of an LSTM; as `GRUBackward`, except for the following.

    Args:
        gates: `[N, 4 H]`, the activations i, f, g and o of all steps.
        tanh_cells: `[N, H]`, tanh(c') of all steps.
        previous_states: The states h and c before the steps, `[N, H]` each.
        grad_gates: `[N, 4 H]`, the gradients for i, f, g and o, equal for input and hidden gates.
        batch_sizes: Number of rows of each step.
    """

    def __init__(
        self,
        gates: torch.Tensor,
        tanh_cells: torch.Tensor,
        previous_states: Sequence[torch.Tensor],
        grad_gates: torch.Tensor,
        batch_sizes: Sequence[int],
    ):
        input_gate, forget_gate, cell_gate, output_gate = gates.chunk(4, dim=1)
        grad_input, grad_forget, grad_cell_gate, grad_output = grad_gates.chunk(4, dim=1)
        grad_input.copy_(sigmoid_backward(cell_gate, input_gate))  # g i (1 - i)
        grad_forget.copy_(sigmoid_backward(previous_states[1], forget_gate))  # c f (1 - f)
        grad_cell_gate.copy_(tanh_backward(input_gate, cell_gate))  # i (1 - g^2)
        grad_output.copy_(sigmoid_backward(tanh_cells, output_gate))  # tanh(c') o (1 - o)
        width = tanh_cells.shape[1]
        self.grad_cell_gates = grad_gates[:, : 3 * width].unflatten(1, (3, -1)).split(batch_sizes)
        self.grad_output_gates = grad_output.split(batch_sizes)
        self.through_tanh = tanh_backward(output_gate, tanh_cells).split(batch_sizes)  # o (1 - tanh(c')^2)
        self.forget_gates = forget_gate.split(batch_sizes)

    def step(self, step: int, grad_state: Sequence[torch.Tensor], grad_previous: Sequence[torch.Tensor]) -> None:
        """Go back through one step, as `GRUBackward.step`; `grad_state` and `grad_previous` hold gradients of h and c."""
        grad_hidden, grad_cell = grad_state
        grad_cell = torch.addcmul(grad_cell, grad_hidden, self.through_tanh[step])
        self.grad_cell_gates[step].mul_(grad_cell.unsqueeze(1))
        self.grad_output_gates[step].mul_(grad_hidden)
        grad_previous[1].addcmul_(grad_cell, self.forget_gates[step])


# By the number of tensors in a state (GRU: h; LSTM: h and c): the step, its derivatives, and by how many gates the hidden
# gates are rotated in `grad_gates`.
STEP_FUNCTIONS = {1: gru_step, 2: lstm_step}
BACKWARD_CLASSES: dict[int, type[GRUBackward] | type[LSTMBackward]] = {1: GRUBackward, 2: LSTMBackward}
HIDDEN_GATE_ROTATION = {1: 1, 2: 0}


def previous_states(states: torch.Tensor, initial_state: torch.Tensor, batch_sizes: Sequence[int]) -> torch.Tensor:
    """List the state that each position starts from: `[..., N, H]`.

    Args:
        states: `[..., N, H]`, the states after each step.
        initial_state: `[..., R, H]`, the state before the first step.
        batch_sizes: Number of rows of each step; it never increases.
    """
    starts = (initial_state, *states.split(batch_sizes, dim=-2))
    return torch.cat([start.narrow(-2, 0, rows) for start, rows in zip(starts, batch_sizes, strict=False)], dim=-2)


def packed_gru(
    x: torch.Tensor,
    parameters: Sequence[Sequence[torch.Tensor]],
    time_chunks: Sequence[TimeChunk],
    initial_state: torch.Tensor,
) -> Sequence[torch.Tensor]:
    """Run the D directions of a GRU layer on a CPU, where torch has no fused kernel for its gradient.

    Args:
        x: `[D, N, input_size]`, the positions of the chunks, one step after the other.
        parameters: torch's `weight_ih` `[3 H, input_size]`, `weight_hh` `[3 H, H]`, `bias_ih` `[3 H]` and `bias_hh` `[3 H]` of
            each direction.
        time_chunks: Steps and rows of each chunk; the number of rows never increases.
        initial_state: `[D, R, H]`, the state of each row before its first step.

    Returns:
        The states of each direction, `[N, H]`.

    Source:
        Cho et al. 2014 (arXiv:1406.1078), in torch's form.
    """
    flat = [parameter for direction in parameters for parameter in direction]
    if not torch.is_grad_enabled():
        return _run_kernel(x, initial_state, flat, time_chunks)
    if initial_state.shape[2] < _WIDE:
        return _PackedGRU.apply(time_chunks, x, initial_state, *flat).unbind()
    return [
        _PackedGRU.apply(time_chunks, own_x, own_state, *own_parameters)[0]
        for own_x, own_state, own_parameters in zip(x.split(1), initial_state.split(1), parameters, strict=True)
    ]


class _PackedGRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, time_chunks, x, initial_state, *flat_parameters):
        batch_sizes = [chunk.rows for chunk in time_chunks for _ in range(chunk.steps)]
        weight_ih, weight_hh, bias_ih, bias_hh = _stack_directions(flat_parameters)
        gates = torch.baddbmm(bias_ih, x, weight_ih.mT)  # [D, N, 3 H], the input gates, to become activations
        hidden_gates = bias_hh.expand_as(gates).clone()  # [D, N, 3 H]
        states = x.new_empty(*x.shape[:2], initial_state.shape[2])  # [D, N, H]
        if states.numel() < _SMALL_STEP * len(batch_sizes):
            states = torch.stack(_run_kernel(x, initial_state, flat_parameters, time_chunks))
            previous = previous_states(states, initial_state, batch_sizes)
            hidden_gates.baddbmm_(previous, weight_hh.mT)
            gru_step(gates, hidden_gates, [previous], [torch.empty_like(states)])
        else:
            step_gates = gates.split(batch_sizes, dim=1)
            step_hidden_gates = hidden_gates.split(batch_sizes, dim=1)
            step_states = states.split(batch_sizes, dim=1)
            weight_hh_transposed, state = weight_hh.mT, initial_state
            for step, rows in enumerate(batch_sizes):
                previous = state.narrow(1, 0, rows)
                step_hidden_gates[step].baddbmm_(previous, weight_hh_transposed)
                (state,) = gru_step(step_gates[step], step_hidden_gates[step], [previous], [step_states[step]])
        ctx.save_for_backward(x, initial_state, *flat_parameters, gates, hidden_gates, states)
        ctx.batch_sizes, ctx.time_chunks = batch_sizes, time_chunks
        return states

    @staticmethod
    def backward(ctx, grad_output):
        x, initial_state, *flat_parameters, gates, hidden_gates, states = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable_backward(ctx, x, initial_state, flat_parameters, grad_output)
        weight_ih, weight_hh, *_ = _stack_directions(flat_parameters)
        width, batch_sizes = initial_state.shape[2], ctx.batch_sizes
        previous = previous_states(states, initial_state, batch_sizes)  # [D, N, H]
        grad_gates = gates.new_empty(*gates.shape[:2], 4 * width)
        grad_hidden_gates = grad_gates[..., : 3 * width]  # in the order n, r, z
        grad_input_gates = grad_gates[..., width:]  # in the order r, z, n
        backward = GRUBackward(gates, hidden_gates[..., 2 * width :], [previous], grad_gates, batch_sizes)
        weight_hh_nrz = weight_hh.roll(width, dims=1)
        grad_initial_state = torch.zeros_like(initial_state)
        # `grad_output` may be written into: the directions are always taken apart, so that it was made for this call alone.
        grad_states = [grad_initial_state, *grad_output.split(batch_sizes, dim=1)]
        step_grad_hidden_gates = grad_hidden_gates.split(batch_sizes, dim=1)
        for step in range(len(batch_sizes) - 1, -1, -1):
            grad_previous = grad_states[step].narrow(1, 0, batch_sizes[step])
            backward.step(step, [grad_states[step + 1]], [grad_previous])
            if step or ctx.needs_input_grad[2]:
                grad_previous.baddbmm_(step_grad_hidden_gates[step], weight_hh_nrz)
        grad_x = grad_input_gates @ weight_ih if ctx.needs_input_grad[1] else None
        grad_weight_ih = grad_input_gates.mT @ x
        grad_weight_hh = (grad_hidden_gates.mT @ previous).roll(-width, dims=1)
        grad_bias = grad_gates.sum(dim=1)
        grad_bias_ih = grad_bias[:, width:]
        grad_bias_hh = grad_bias[:, : 3 * width].roll(-width, dims=1)
        grad_parameters = []
        for direction in range(len(x)):
            grad_parameters += [grad[direction] for grad in (grad_weight_ih, grad_weight_hh, grad_bias_ih, grad_bias_hh)]
        return None, grad_x, grad_initial_state, *grad_parameters


def _stack_directions(flat_parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Stack the four parameters over the directions: weights `[D, 3 H, ...]`, biases `[D, 1, 3 H]`; views for D = 1."""
    stacked = []
    for kind in range(4):
        directions = flat_parameters[kind::4]
        stacked.append(directions[0].unsqueeze(0) if len(directions) == 1 else torch.stack(list(directions)))
    weight_ih, weight_hh, bias_ih, bias_hh = stacked
    return [weight_ih, weight_hh, bias_ih.unsqueeze(1), bias_hh.unsqueeze(1)]


def _differentiable_backward(
    ctx, x: torch.Tensor, initial_state: torch.Tensor, flat_parameters: list[torch.Tensor], grad_output: torch.Tensor
) -> tuple[torch.Tensor | None, ...]:
    """Let autograd record every step, where the gradient itself is differentiated."""
    states = torch.stack(_run_kernel(x, initial_state, flat_parameters, ctx.time_chunks))
    inputs, is_needed = (x, initial_state, *flat_parameters), ctx.needs_input_grad[1:]
    needed = [tensor for tensor, needs_grad in zip(inputs, is_needed, strict=True) if needs_grad]
    grads = iter(torch.autograd.grad(states, needed, grad_output, create_graph=True))
    return (None, *(next(grads) if needs_grad else None for needs_grad in is_needed))


def _run_kernel(
    x: torch.Tensor, initial_state: torch.Tensor, flat_parameters: Sequence[torch.Tensor], time_chunks: Sequence[TimeChunk]
) -> list[torch.Tensor]:
    """Run torch's kernel for rows of equal length if there is one chunk, else its kernel for packed rows."""
    states = []
    for direction, state in enumerate(initial_state[:, : time_chunks[0].rows].split(1)):
        own_x, own_parameters = x[direction], list(flat_parameters[4 * direction : 4 * direction + 4])
        if len(time_chunks) == 1:
            padded = own_x.view(*time_chunks[0], own_x.shape[1])
            states.append(torch.gru(padded, state, own_parameters, True, 1, 0.0, False, False, False)[0].flatten(0, 1))
        else:
            batch_sizes = torch.tensor([chunk.rows for chunk in time_chunks for _ in range(chunk.steps)])
            states.append(torch.gru(own_x, batch_sizes, state, own_parameters, True, 1, 0.0, False, False)[0])
    return states
