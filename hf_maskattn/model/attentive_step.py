"""One step of a recurrence that attends, without a gradient: what a word of `generate()` takes, in the fewest calls."""

from collections.abc import Sequence

import torch
from torch.nn.functional import linear

from .eager_attention import heads_apart, weigh
from .softmax import masked_softmax
from .tensor_checks import host_can_read


def attentive_step(
    rnn_type: str,
    x: torch.Tensor,
    weights: Sequence[torch.Tensor],
    attention: tuple[torch.Tensor, torch.Tensor],
    memory: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    state: Sequence[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
    """Read a token of each row beside the context that its state asks for.

    The same numbers as `attentive_recurrence_over_cells` for one step, up to the order of summation. Rows that ask the same
    source share what is made of it.

    Args:
        rnn_type: "lstm" or "gru".
        x: `[R, E]`, the tokens.
        weights: As in `attentive_recurrence_over_cells`, as is `attention`.
        attention: See there.
        memory: Keys `[S, Tk, A]`, values `[S, Tk, M]`, finite at pads, and mask `[S, Tk]`, bool, True = real. S is R, or R / n
            where n rows, one after the other, ask the same source.
        state: The state before, `[R, H]`; of an LSTM also its cell.

    Returns:
        The new state h `[R, H]`; the context `[R, M]`; its weights `[R, heads, Tk]`; the whole new state, as `state`.

    Numerics:
        It runs in the dtype of its weights, under autocast too.

    Source:
        Bahdanau et al. 2015 (arXiv:1409.0473), appendix A.2.2; the GRU and the LSTM in torch's form.
    """
    (query_weight, energy), (keys, values, mask) = attention, memory
    dtype = weights[0].dtype
    if torch.is_autocast_enabled(x.device.type) or not x.dtype == keys.dtype == values.dtype == state[0].dtype == dtype:
        vectors, state = (query_weight.to(dtype), energy.to(dtype)), [tensor.to(dtype) for tensor in state]
        with torch.autocast(x.device.type, enabled=False):
            return attentive_step(rnn_type, x.to(dtype), weights, vectors, (keys.to(dtype), values.to(dtype), mask), state)
    rows, heads, (sources, time, size) = x.shape[0], energy.shape[0], keys.shape
    together = rows // sources if sources else 1  # n
    query = linear(state[0], query_weight).mul_(2).view(sources, together, 1, size)
    # tanh(z) = 2 sigmoid(2 z) - 1; -sum(v), the same for all scores of a head, changes no weight.
    hidden = torch.add(query, keys.unsqueeze(1), alpha=2).sigmoid_()  # [S, n, Tk, A]
    scores = (hidden @ heads_apart(energy)).mul_(2)  # [S, n, Tk, heads]
    if heads == 1:
        full = host_can_read(mask) and bool(mask.all())
        maps = masked_softmax(scores.squeeze(3), None if full else mask.unsqueeze(1))  # [S, n, Tk]
        context = torch.bmm(maps, values)
    else:
        context, maps = weigh(scores.permute(0, 3, 1, 2), values, mask, 0.0)
        maps = maps.transpose(1, 2)
    context, maps = context.reshape(rows, values.shape[2]), maps.reshape(rows, heads, time)
    read = torch.cat([x, context], dim=1)
    if rnn_type == "gru":
        new = torch.gru_cell(read, state[0], *weights)
        return new, context, maps, (new,)
    new, cell = torch.lstm_cell(read, [*state], *weights)
    return new, context, maps, (new, cell)
