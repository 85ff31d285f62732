"""The gates of the LSTM and the GRU in torch's form, on products that were computed before, and their derivatives.

What a step keeps are its activations; the derivatives of all steps are elementwise in them, and are taken at once.
"""

from collections.abc import Callable, Sequence

import torch

from .tanh import tanh_

# From the gradient of the state after a step to those of its gates, and on to the state before it.
Back = Callable[[slice, Sequence[torch.Tensor], Sequence[torch.Tensor]], None]


def gru_step(
    gates: torch.Tensor, of_state: torch.Tensor, state: Sequence[torch.Tensor], kept: torch.Tensor, out: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Take a step of a GRU.

    Args:
        gates: `[rows, 3 H]`, what the input brings to the gates; the activations r, z and n take its place.
        of_state: `[rows, 3 H]`, what the state brings, with its bias.
        state: The state before, `[rows, H]`.
        kept: Where the third part of `of_state` is kept for the gradient, `[rows, H]`.
        out: Where the state after goes, `[rows, H]`.

    Returns:
        The state after.

    Source:
        Cho et al. 2014 (arXiv:1406.1078), in torch's form.
    """
    width = kept.shape[1]
    reset, update = gates[:, : 2 * width].add_(of_state[:, : 2 * width]).sigmoid_().chunk(2, dim=1)
    new = tanh_(gates[:, 2 * width :].addcmul_(reset, kept.copy_(of_state[:, 2 * width :])))
    return [torch.lerp(new, state[0], update, out=out[0])]


def lstm_step(
    gates: torch.Tensor, of_state: torch.Tensor, state: Sequence[torch.Tensor], kept: torch.Tensor, out: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Take a step of an LSTM; as `gru_step`, with four gates i, f, g and o, and a state of h and c.

    Source:
        Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000, in torch's form.
    """
    width = kept.shape[1]
    gates.add_(of_state)
    entry, forget = gates[:, : 2 * width].sigmoid_().chunk(2, dim=1)
    new, exit_ = tanh_(gates[:, 2 * width : 3 * width]), gates[:, 3 * width :].sigmoid_()
    cell = torch.mul(state[1], forget, out=out[1]).addcmul_(entry, new)
    return [torch.mul(exit_, tanh_(kept.copy_(cell)), out=out[0]), cell]


def gru_backward(
    gates: torch.Tensor, kept: torch.Tensor, before: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, Back]:
    """Take the derivatives of all steps of a GRU.

    Args:
        gates: `[N, 3 H]`, the activations of all steps.
        kept: `[N, H]`, what the steps kept.
        before: The states before the steps, `[N, H]`.

    Returns:
        Gradients of what the input and of what the state brought to the gates, `[N, 3 H]` each, right for a step once `Back`
        has gone through it, and `Back` itself, to be called from the last step to the first with the place of the step, the
        gradients of the state after it and, to be added to, of that before it.
    """
    reset, update, new = gates.chunk(3, dim=1)
    of_new = (1 - update) * (1 - new * new)
    of_update = (before[0] - new) * update * (1 - update)
    of_reset = of_new * kept * reset * (1 - reset)
    of_input = torch.cat([of_reset, of_update, of_new], dim=1)
    of_state = torch.cat([of_reset, of_update, of_new * reset], dim=1)
    by_gate = [tensor.unflatten(1, (3, -1)) for tensor in (of_input, of_state)]

    def back(now, of_after, of_before):
        for tensor in by_gate:
            tensor[now].mul_(of_after[0][:, None])
        of_before[0].addcmul_(of_after[0], update[now])

    return of_input, of_state, back


def lstm_backward(
    gates: torch.Tensor, kept: torch.Tensor, before: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, Back]:
    """Take the derivatives of all steps of an LSTM; as `gru_backward`, and both gradients are the same."""
    entry, forget, new, exit_ = gates.chunk(4, dim=1)
    of_gates = torch.cat(
        [
            new * entry * (1 - entry),
            before[1] * forget * (1 - forget),
            entry * (1 - new * new),
            kept * exit_ * (1 - exit_),
        ],
        dim=1,
    )
    through_cell = exit_ * (1 - kept * kept)
    by_gate = of_gates.unflatten(1, (4, -1))

    def back(now, of_after, of_before):
        of_cell = torch.addcmul(of_after[1], of_after[0], through_cell[now])
        by_gate[now, :3].mul_(of_cell[:, None])
        by_gate[now, 3].mul_(of_after[0])
        of_before[1].addcmul_(of_cell, forget[now])

    return of_gates, of_gates, back


# By the number of tensors in a state.
STEPS = {1: gru_step, 2: lstm_step}
BACKWARD = {1: gru_backward, 2: lstm_backward}
