"""The gradient of a GRU over cells, with one matrix product a step; torch's own on a CPU records every step instead.

The forward kernel is torch's. Given all states, the gates of all cells are one matrix product, and the derivative of the cell
(torch's own) with respect to its gates is elementwise: taken once, for all cells and an incoming gradient of one, it leaves a
recursion over the steps that is linear in the gradient of the state.
"""

from collections.abc import Sequence

import torch

from .segments import Segment


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
    return _GRU.apply(x, first, *weights, segments)


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, first, weight_ih, weight_hh, bias_ih, bias_hh, segments):
        weights = [weight_ih, weight_hh, bias_ih, bias_hh]
        states = _run(x, first, weights, segments)
        ctx.save_for_backward(x, first, states, *weights)
        ctx.segments = segments
        return states

    @staticmethod
    def backward(ctx, grad):
        x, first, states, *weights = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable_gradients([x, first, *weights], ctx, grad)
        weight_ih, weight_hh, bias_ih, bias_hh = weights
        before = _states_before(states, first, ctx.segments)  # [N, H]
        of_input, of_hidden, of_before, _, _ = torch.ops.aten._thnn_differentiable_gru_cell_backward(
            torch.ones_like(states),
            torch.addmm(bias_ih, x, weight_ih.T),
            torch.addmm(bias_hh, before, weight_hh.T),
            before,
            None,
            None,
        )  # [N, 3 H], [N, 3 H], [N, H]
        grad = grad.clone()  # [N, H], of each state; complete from the last step to the first
        gates = of_hidden.view(len(x), 3, -1)
        rows = [segment.rows for segment in ctx.segments for _ in range(segment.steps)]
        of_first = torch.zeros_like(first)
        of_states = [of_first, *grad.split(rows)]  # of the state before each step, and after the last
        steps = [*zip(rows, of_states, of_states[1:], gates.split(rows), of_before.split(rows), strict=False)]
        for alive, earlier, now, gate, carried in reversed(steps):
            gate.mul_(now[:, None])
            if earlier is not of_first or ctx.needs_input_grad[1]:
                earlier[:alive].addcmul_(now, carried).addmm_(gate.flatten(1), weight_hh)
        of_hidden = gates.flatten(1)
        of_input = (of_input.view_as(gates) * grad[:, None]).flatten(1)
        return (
            of_input @ weight_ih if ctx.needs_input_grad[0] else None,
            of_first,
            of_input.T @ x,
            of_hidden.T @ before,
            of_input.sum(dim=0),
            of_hidden.sum(dim=0),
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


def _states_before(states: torch.Tensor, first: torch.Tensor, segments: Sequence[Segment]) -> torch.Tensor:
    """Give each cell the state of its row one step earlier, in the first step that before it: `[N, H]`."""
    parts, start, rows_before = [first[: segments[0].rows]], 0, segments[0].rows
    for steps, rows in segments:
        if start:
            parts.append(states[start - rows_before : start - rows_before + rows])
        parts.append(states[start : start + (steps - 1) * rows])
        start, rows_before = start + steps * rows, rows
    return torch.cat(parts)
