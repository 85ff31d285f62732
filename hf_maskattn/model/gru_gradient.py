"""The gradient of a GRU over cells, with one matrix product a step; torch's own on a CPU records every step instead.

Forward, a step is one matrix product and the gates, whose activations are kept; where steps are so small that calls cost more,
torch's kernel takes them, and the gates are found again for all of them at once. Backward, the derivatives of the gates are
elementwise, and taken once for all cells; what is left for the loop is linear in the gradient of the state.
"""

from collections.abc import Sequence

import torch

from .gate_steps import SHIFT, gru_backward, gru_step, states_before
from .segments import Segment

_SMALL_STEP = 2**10
"""Numbers in the state of all rows below which a step was found to cost less in torch's kernel, its gates computed twice."""


def gru_over_cells(
    x: torch.Tensor, weights: Sequence[torch.Tensor], segments: Sequence[Segment], first: torch.Tensor
) -> torch.Tensor:
    """Run one direction of a GRU layer on a CPU.

    Args:
        x: `[N, input_size]`, the cells of the segments, one step after the other.
        weights: torch's `weight_ih` `[3 H, input_size]`, `weight_hh` `[3 H, H]`, `bias_ih` `[3 H]` and `bias_hh` `[3 H]`.
        segments: Steps and rows of each segment; rows never increase.
        first: `[R, H]`, the state before the first step of each of its rows.

    Returns:
        The states `[N, H]`.

    Source:
        Cho et al. 2014 (arXiv:1406.1078), in torch's form.
    """
    if not torch.is_grad_enabled():
        return _run(x, first, [*weights], segments)
    return _GRU.apply(x, first, *weights, segments)


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, first, weight_ih, weight_hh, bias_ih, bias_hh, segments):
        rows = [segment.rows for segment in segments for _ in range(segment.steps)]
        gates = torch.addmm(bias_ih, x, weight_ih.T)  # [N, 3 H], to become activations
        brought, states = torch.empty_like(gates), x.new_empty(len(x), weight_hh.shape[1])
        if states.numel() < _SMALL_STEP * len(rows):
            states = _run(x, first, [weight_ih, weight_hh, bias_ih, bias_hh], segments)
            before = states_before(states, first, rows)
            torch.addmm(bias_hh, before, weight_hh.T, out=brought)
            gru_step(gates, brought, [before], [torch.empty_like(states)])
        else:
            state, of_state = first, weight_hh.T
            for of_input, of_both, after in zip(gates.split(rows), brought.split(rows), states.split(rows), strict=True):
                state = state.narrow(0, 0, len(after))
                torch.addmm(bias_hh, state, of_state, out=of_both)
                (state,) = gru_step(of_input, of_both, [state], [after])
        ctx.save_for_backward(x, first, weight_ih, weight_hh, bias_ih, bias_hh, gates, brought, states)
        ctx.rows, ctx.segments = rows, segments
        return states

    @staticmethod
    def backward(ctx, grad):
        x, first, weight_ih, weight_hh, bias_ih, bias_hh, gates, brought, states = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable_gradients([x, first, weight_ih, weight_hh, bias_ih, bias_hh], ctx, grad)
        width, rows = weight_hh.shape[1], ctx.rows
        before = states_before(states, first, rows)  # [N, H]
        of_both = gates.new_empty(len(gates), 4 * width)
        of_brought, of_input = of_both[:, : 3 * width], of_both[:, width:]
        back = gru_backward(gates, brought[:, 2 * width :], [before], of_both, rows)
        of_first, of_state = torch.zeros_like(first), weight_hh.roll(SHIFT[1] * width, dims=0)
        of_states = [of_first, *grad.clone().split(rows)]  # complete from the last step to the first
        of_products = of_brought.split(rows)
        for step in range(len(rows) - 1, -1, -1):
            earlier = of_states[step].narrow(0, 0, rows[step])
            back(step, [of_states[step + 1]], [earlier])
            if step or ctx.needs_input_grad[1]:
                earlier.addmm_(of_products[step], of_state)
        of_bias = of_both.sum(dim=0)
        return (
            of_input @ weight_ih if ctx.needs_input_grad[0] else None,
            of_first,
            of_input.T @ x,
            (of_brought.T @ before).roll(-SHIFT[1] * width, dims=0),
            of_bias[width:],
            of_bias[: 3 * width].roll(-SHIFT[1] * width),
            None,
        )


def _differentiable_gradients(inputs: list[torch.Tensor], ctx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """Leave it to torch, which records every step, where the gradient is to be differentiated again."""
    wanted = ctx.needs_input_grad[: len(inputs)]
    states = _run(inputs[0], inputs[1], inputs[2:], ctx.segments)
    needed = [tensor for tensor, is_wanted in zip(inputs, wanted, strict=True) if is_wanted]
    found = iter(torch.autograd.grad(states, needed, grad, create_graph=True))
    return (*(next(found) if is_wanted else None for is_wanted in wanted), None)


def _run(x: torch.Tensor, first: torch.Tensor, weights: list[torch.Tensor], segments: Sequence[Segment]) -> torch.Tensor:
    """Run torch's kernel for equal rows if all are equal, else that for rows that end at any step."""
    first = first[None, : segments[0].rows]
    if len(segments) == 1:
        batch = x.view(*segments[0], x.shape[1])
        return torch.gru(batch, first, weights, True, 1, 0.0, False, False, False)[0].flatten(0, 1)
    rows_of_steps = torch.tensor([segment.rows for segment in segments for _ in range(segment.steps)])
    return torch.gru(x, rows_of_steps, first, weights, True, 1, 0.0, False, False)[0]
