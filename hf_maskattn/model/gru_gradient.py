"""The gradient of a GRU over cells, with one matrix product a step; torch's own on a CPU records every step instead.

Forward, a step is one matrix product and the gates, whose activations are kept; where steps are so small that calls cost more,
torch's kernel takes them, and the gates are found again for all of them at once. Backward, the derivatives of the gates are
elementwise, and taken once for all cells; what is left for the loop is linear in the gradient of the state. The directions of
a layer have the same rows at each step, and go side by side.
"""

from collections.abc import Sequence

import torch

from .gate_steps import SHIFT, gru_backward, gru_step, states_before
from .segments import Segment

_SMALL_STEP = 2**10
"""Numbers in the state of all rows and directions below which a step was found to cost less in torch's kernel, its gates
computed twice."""

_WIDE = 384
"""Units of a direction from which two were found to cost less one after the other: the cache holds the weights of one."""


def gru_over_cells(
    x: torch.Tensor, weights: Sequence[Sequence[torch.Tensor]], segments: Sequence[Segment], first: torch.Tensor
) -> Sequence[torch.Tensor]:
    """Run the D directions of a GRU layer on a CPU.

    Args:
        x: `[D, N, input_size]`, the cells of the segments, one step after the other.
        weights: torch's `weight_ih` `[3 H, input_size]`, `weight_hh` `[3 H, H]`, `bias_ih` `[3 H]` and `bias_hh` `[3 H]` of
            each direction.
        segments: Steps and rows of each segment; rows never increase.
        first: `[D, R, H]`, the state before the first step of each of its rows.

    Returns:
        The states of each direction, `[N, H]`.

    Source:
        Cho et al. 2014 (arXiv:1406.1078), in torch's form.
    """
    flat = [weight for direction in weights for weight in direction]
    if not torch.is_grad_enabled():
        return _run(x, first, flat, segments)
    if first.shape[2] < _WIDE:
        return _GRU.apply(segments, x, first, *flat).unbind()
    each = zip(x.split(1), first.split(1), weights, strict=True)
    return [_GRU.apply(segments, own_x, own_first, *own)[0] for own_x, own_first, own in each]


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, segments, x, first, *weights):
        rows = [segment.rows for segment in segments for _ in range(segment.steps)]
        weight_ih, weight_hh, bias_ih, bias_hh = _side_by_side(weights)
        gates = torch.baddbmm(bias_ih, x, weight_ih.mT)  # [D, N, 3 H], to become activations
        brought, states = bias_hh.expand_as(gates).clone(), x.new_empty(*x.shape[:2], first.shape[2])
        if states.numel() < _SMALL_STEP * len(rows):
            states = torch.stack(_run(x, first, weights, segments))
            before = states_before(states, first, rows)
            brought.baddbmm_(before, weight_hh.mT)
            gru_step(gates, brought, [before], [torch.empty_like(states)])
        else:
            state, of_state = first, weight_hh.mT
            by_step = (tensor.split(rows, dim=1) for tensor in (gates, brought, states))
            for of_input, of_both, after in zip(*by_step, strict=True):
                state = state.narrow(1, 0, after.shape[1])
                (state,) = gru_step(of_input, of_both.baddbmm_(state, of_state), [state], [after])
        ctx.save_for_backward(x, first, *weights, gates, brought, states)
        ctx.rows, ctx.segments = rows, segments
        return states

    @staticmethod
    def backward(ctx, grad):
        x, first, *weights, gates, brought, states = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable_gradients(x, first, weights, ctx, grad)
        weight_ih, weight_hh, *_ = _side_by_side(weights)
        width, rows = first.shape[2], ctx.rows
        before = states_before(states, first, rows)  # [D, N, H]
        of_both = gates.new_empty(*gates.shape[:2], 4 * width)
        of_brought, of_input = of_both[..., : 3 * width], of_both[..., width:]
        back = gru_backward(gates, brought[..., 2 * width :], [before], of_both, rows)
        # `grad` may be written into: it was put together for this call alone, since the directions are always taken apart.
        of_first, of_state = torch.zeros_like(first), weight_hh.roll(SHIFT[1] * width, dims=1)
        of_states = [of_first, *grad.split(rows, dim=1)]  # complete from the last step to the first
        of_products = of_brought.split(rows, dim=1)
        for step in range(len(rows) - 1, -1, -1):
            earlier = of_states[step].narrow(1, 0, rows[step])
            back(step, [of_states[step + 1]], [earlier])
            if step or ctx.needs_input_grad[2]:
                earlier.baddbmm_(of_products[step], of_state)
        of_bias = of_both.sum(dim=1)
        of_weights = (
            of_input.mT @ x,
            (of_brought.mT @ before).roll(-SHIFT[1] * width, dims=1),
            of_bias[:, width:],
            of_bias[:, : 3 * width].roll(-SHIFT[1] * width, dims=1),
        )
        of_x = of_input @ weight_ih if ctx.needs_input_grad[1] else None
        return None, of_x, of_first, *(of_one for direction in zip(*of_weights, strict=True) for of_one in direction)


def _side_by_side(weights: list[torch.Tensor] | tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Stack the four weights of all directions, `[D, ...]`, the biases as rows `[D, 1, 3 H]`; of one direction as views."""
    of_kinds = (weights[kind::4] for kind in range(4))
    weight_ih, weight_hh, *biases = (kind[0].unsqueeze(0) if len(kind) == 1 else torch.stack(kind) for kind in of_kinds)
    return [weight_ih, weight_hh, *(bias.unsqueeze(1) for bias in biases)]


def _differentiable_gradients(
    x: torch.Tensor, first: torch.Tensor, weights: list[torch.Tensor], ctx, grad: torch.Tensor
) -> tuple[torch.Tensor | None, ...]:
    """Leave it to torch, which records every step, where the gradient is to be differentiated again."""
    states = torch.stack(_run(x, first, weights, ctx.segments))
    wanted = ctx.needs_input_grad[1:]
    needed = [tensor for tensor, is_wanted in zip((x, first, *weights), wanted, strict=True) if is_wanted]
    found = iter(torch.autograd.grad(states, needed, grad, create_graph=True))
    return (None, *(next(found) if is_wanted else None for is_wanted in wanted))


def _run(
    x: torch.Tensor, first: torch.Tensor, weights: Sequence[torch.Tensor], segments: Sequence[Segment]
) -> list[torch.Tensor]:
    """Run torch's kernel for equal rows if all are equal, else that for rows that end at any step."""
    states = []
    for direction, (own, state) in enumerate(zip(x, first[:, : segments[0].rows].split(1), strict=True)):
        own_weights = [*weights[4 * direction : 4 * direction + 4]]
        if len(segments) == 1:
            batch = own.view(*segments[0], own.shape[1])
            states.append(torch.gru(batch, state, own_weights, True, 1, 0.0, False, False, False)[0].flatten(0, 1))
        else:
            rows = torch.tensor([segment.rows for segment in segments for _ in range(segment.steps)])
            states.append(torch.gru(own, rows, state, own_weights, True, 1, 0.0, False, False)[0])
    return states
