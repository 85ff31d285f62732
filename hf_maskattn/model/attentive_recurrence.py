"""A recurrence that attends to a memory at every step, step by step by torch's cells: any attention, any compiler."""

from collections.abc import Callable, Sequence

import torch

CELLS: dict[str, Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]] = {"lstm": torch.lstm_cell, "gru": torch.gru_cell}


def attentive_recurrence(
    rnn_type: str,
    x: torch.Tensor,
    weights: Sequence[torch.Tensor],
    attend: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    first: Sequence[torch.Tensor],
    fed: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
    """Run a cell over a target; its input at each step is a token of the target beside a context.

    Args:
        rnn_type: "lstm" or "gru".
        x: `[T, B, E]`, the target tokens, T >= 1.
        weights: torch's `weight_ih` `[gates * H, E + M]`, which reads the token and then the context, `weight_hh`
            `[gates * H, H]`, `bias_ih` and `bias_hh` `[gates * H]`.
        attend: Gives for states `[B, H]` a context `[B, M]` and weights `[B, heads, Tk]`.
        first: The state before the first step, `[B, H]`; of an LSTM also its cell.
        fed: None where the previous state asks for the context that the cell reads (Bahdanau). Otherwise the new state asks
            for a context that the cell reads in the next step (input feeding), and this is the first one, `[B, M]`.

    Returns:
        States `[T, B, H]`; contexts `[T, B, M]` and weights `[T, B, heads, Tk]` of each step; the last state, as `first`.

    Source:
        Bahdanau et al. 2015 (arXiv:1409.0473), appendix A.2.2; Luong et al. 2015 (arXiv:1508.04025), section 3.3, for input
        feeding.
    """
    state: tuple[torch.Tensor, ...] = tuple(first)
    states: list[torch.Tensor] = []
    attended: list[tuple[torch.Tensor, torch.Tensor]] = []
    for token in x.unbind():
        if fed is None:
            attended.append(attend(state[0]))
        read = torch.cat([token, attended[-1][0] if fed is None or states else fed], dim=-1)
        new = CELLS[rnn_type](read, state if rnn_type == "lstm" else state[0], *weights)
        state = (new,) if isinstance(new, torch.Tensor) else tuple(new)
        states.append(state[0])
        if fed is not None:
            attended.append(attend(state[0]))
    contexts, maps = (torch.stack(tensors) for tensors in zip(*attended, strict=True))
    return torch.stack(states), contexts, maps, state
