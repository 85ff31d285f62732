"""The gates of the LSTM and the GRU in torch's form, on products that were computed before, and their derivatives.

What a step keeps are its activations; the derivatives of all steps are elementwise in them, and are taken at once. Those of a
GRU lie side by side as `[r n | r | z | n]`: the first three belong to what the state brings to the gates n, r and z, the last
three to what the input brings, so that each is one matrix, and a step of the gradient is one product.
"""

from collections.abc import Callable, Sequence

import torch

# From the gradient of the state after a step, given its index, to those of its gates, and on to the state before it.
Back = Callable[[int, Sequence[torch.Tensor], Sequence[torch.Tensor]], None]

sigmoid_backward, tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward


def gru_step(
    gates: torch.Tensor, of_state: torch.Tensor, state: Sequence[torch.Tensor], out: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Take a step of a GRU.

    Args:
        gates: `[..., rows, 3 H]`, what the input brings to the gates r, z and n; their activations take its place. A leading
            dimension, if there is one, holds the directions of a layer.
        of_state: `[..., rows, 3 H]`, what the state brings, with its bias; its last part is for the gradient.
        state: The state before, `[..., rows, H]`.
        out: Where the state after goes, `[..., rows, H]`.

    Returns:
        The state after.

    Source:
        Cho et al. 2014 (arXiv:1406.1078), in torch's form.
    """
    (reset, update, new), width = gates.chunk(3, dim=-1), state[0].shape[-1]
    of_both, of_new = of_state.split([2 * width, width], dim=-1)
    gates.narrow(-1, 0, 2 * width).add_(of_both).sigmoid_()
    new.addcmul_(reset, of_new).tanh_()  # as fast as `tanh_` for the numbers of one step
    return [torch.lerp(new, state[0], update, out=out[0])]


def lstm_step(
    gates: torch.Tensor, of_state: torch.Tensor, state: Sequence[torch.Tensor], out: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Take a step of an LSTM; as `gru_step`, with four gates i, f, g and o on either side, and a state of h and c.

    The last part of `of_state` becomes tanh(c), for the gradient.

    Source:
        Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000, in torch's form.
    """
    (entry, forget, new, exit_), width = gates.chunk(4, dim=1), state[0].shape[1]
    gates.add_(of_state).narrow(1, 0, 2 * width).sigmoid_()
    new.tanh_()
    exit_.sigmoid_()
    cell = torch.mul(state[1], forget, out=out[1]).addcmul_(entry, new)
    return [torch.mul(exit_, torch.tanh(cell, out=of_state.narrow(1, 3 * width, width)), out=out[0]), cell]


def gru_backward(
    gates: torch.Tensor, kept: torch.Tensor, before: Sequence[torch.Tensor], out: torch.Tensor, rows: Sequence[int]
) -> Back:
    """Take the derivatives of all steps of a GRU.

    Args:
        gates: `[..., N, 3 H]`, the activations of all steps.
        kept: `[..., N, H]`, the last part of what the state brought.
        before: The states before the steps, `[..., N, H]`.
        out: Where the gradients of the gates go, `[..., N, 4 H]`: the first three parts are those of what the state brought to
            n, r and z, the last three those of what the input brought, right for a step once `Back` has gone through it.
        rows: Rows of each step.

    Returns:
        To be called from the last step to the first with the index of the step, the gradients of the state after it and, to
        be added to, of that before it.
    """
    reset, update, new = gates.chunk(3, dim=-1)
    of_brought, of_reset, of_update, of_new = out.chunk(4, dim=-1)
    torch.sub(before[0], new, out=of_update)
    of_update.copy_(sigmoid_backward(of_update, update))
    of_new.copy_(tanh_backward(1 - update, new))
    of_reset.copy_(sigmoid_backward(of_new * kept, reset))
    torch.mul(of_new, reset, out=of_brought)
    of_gates, updates = out.unflatten(-1, (4, -1)).split(rows, dim=-3), update.split(rows, dim=-2)

    def back(step, of_after, of_before):
        of_gates[step].mul_(of_after[0].unsqueeze(-2))
        of_before[0].addcmul_(of_after[0], updates[step])

    return back


def lstm_backward(
    gates: torch.Tensor, kept: torch.Tensor, before: Sequence[torch.Tensor], out: torch.Tensor, rows: Sequence[int]
) -> Back:
    """Take the derivatives of all steps of an LSTM; as `gru_backward`, but both sides share all of `out`, `[N, 4 H]`."""
    entry, forget, new, exit_ = gates.chunk(4, dim=1)
    of_entry, of_forget, of_new, of_exit = out.chunk(4, dim=1)
    of_entry.copy_(sigmoid_backward(new, entry))
    of_forget.copy_(sigmoid_backward(before[1], forget))
    of_new.copy_(tanh_backward(entry, new))
    of_exit.copy_(sigmoid_backward(kept, exit_))
    of_three, of_fourth = out[:, : -of_exit.shape[1]].unflatten(1, (3, -1)).split(rows), of_exit.split(rows)
    through_cells, forgets = tanh_backward(exit_, kept).split(rows), forget.split(rows)

    def back(step, of_after, of_before):
        of_cell = torch.addcmul(of_after[1], of_after[0], through_cells[step])
        of_three[step].mul_(of_cell.unsqueeze(1))
        of_fourth[step].mul_(of_after[0])
        of_before[1].addcmul_(of_cell, forgets[step])

    return back


def states_before(states: torch.Tensor, first: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    """Give each cell the state of its row one step earlier, which for the first step is `first`: `[..., N, H]`.

    Args:
        states: `[..., N, H]`, those after each step.
        first: `[..., R, H]`, those before the first step.
        rows: Rows of each step; they never increase.
    """
    steps = (first, *states.split(rows, dim=-2))
    return torch.cat([step.narrow(-2, 0, alive) for step, alive in zip(steps, rows, strict=False)], dim=-2)


# By the number of tensors in a state: the step, its derivatives, and by how many gates those of the state are rolled there.
STEPS = {1: gru_step, 2: lstm_step}
BACKWARD = {1: gru_backward, 2: lstm_backward}
SHIFT = {1: 1, 2: 0}
