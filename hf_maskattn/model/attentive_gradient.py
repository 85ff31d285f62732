"""A recurrence that attends to a memory at every step, and its gradient: the loop holds what must be sequential, no more.

Forward, a step is three matrix products, one pass of the attention and the gates. Backward, the derivatives of the gates are
elementwise, and taken once for all steps; what is left for the loop is linear in the gradient of the state. The gradients of
all weights are one product each over all steps, at the end.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from .eager_attention import heads_apart
from .gate_steps import BACKWARD, STEPS
from .segments import Segment
from .softmax import drop_tokens, masked_softmax


def attentive_recurrence_over_cells(
    rnn_type: str,
    x: torch.Tensor,
    weights: Sequence[torch.Tensor],
    attention: tuple[torch.Tensor, torch.Tensor],
    memory: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    segments: Sequence[Segment],
    first: Sequence[torch.Tensor],
    dropout: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
    """Run a cell over a target; at each step it reads a token beside the context that its previous state asked for.

    The same numbers as `attentive_recurrence` with additive attention, up to the order of summation.

    Args:
        rnn_type: "lstm" or "gru".
        x: `[N, E]`, the target tokens in the cells of the segments, one step after the other.
        weights: torch's `weight_ih` `[gates * H, E + M]`, which reads the token and then the context, `weight_hh`
            `[gates * H, H]`, `bias_ih` and `bias_hh` `[gates * H]`.
        attention: The projection W of a query `[A, H]`, and the vector v of each head, `[heads, A / heads]`.
        memory: Keys `[R, Tk, A]`, values `[R, Tk, M]`, finite at pads, and mask `[R, Tk]`, bool, True = real.
        segments: Steps and rows of each segment; rows never increase.
        first: The state before the first step, `[R, H]`; of an LSTM also its cell.
        dropout: Chance of each score to be dropped before the softmax.

    Returns:
        States `[N, H]`; contexts `[N, M]`; weights `[N, heads, Tk]`; the state of the rows of the last segment after its last
        step, as `first`.

    Numerics:
        tanh(W q + U h) exists for one step at a time and is computed again for the gradient. It can be differentiated once.
        Under autocast it runs in the dtype of its weights.

    Source:
        Bahdanau et al. 2015 (arXiv:1409.0473), appendix A.2.2; the GRU and the LSTM in torch's form.
    """
    rows = [segment.rows for segment in segments for _ in range(segment.steps)]
    dtype = weights[1].dtype
    keys, values, mask = memory
    tensors = [tensor.to(dtype) for tensor in (x, keys, values, *weights, *attention, *first)]
    with torch.autocast(x.device.type, enabled=False):
        states, contexts, maps, *cells = _AttentiveRecurrence.apply(rows, mask, dropout, *tensors)
    return states, contexts, maps, tuple(tensor[len(x) - rows[-1] :] for tensor in (states, *cells))


class _AttentiveRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, rows, mask, dropout, x, keys, values, weight_ih, weight_hh, bias_ih, bias_hh, query_weight, energy, *first
    ):
        (count, read), (_, time, size), (heads, _) = x.shape, keys.shape, energy.shape
        width, memory_size = weight_hh.shape[1], values.shape[2]
        gates = torch.addmm(bias_ih, x, weight_ih[:, :read].T)  # [N, gates * H], of the tokens, to become activations
        of_context, of_state = weight_ih[:, read:].T, weight_hh.T
        queries = x.new_empty(count, size)  # 2 W q, for tanh(z) = 2 sigmoid(2 z) - 1
        states, kept = x.new_empty(len(first), count, width), x.new_empty(count, width)
        contexts, maps = x.new_empty(count, memory_size), x.new_empty(count, heads, time)
        values_of_heads = values.unflatten(-1, (heads, -1)).transpose(1, 2)  # [R, heads, Tk, M / heads]
        vectors = heads_apart(energy).mul_(2)  # [A, heads]; -sum(v), the same for all scores of a head, changes no weight
        hidden, from_state = torch.empty_like(keys), x.new_empty(len(keys), len(weight_hh))
        state, stop = [tensor[: rows[0]] for tensor in first], 0
        for alive in rows:
            start, stop = stop, stop + alive
            state = [tensor[:alive] for tensor in state]
            query = torch.mm(state[0], query_weight.T, out=queries[start:stop]).mul_(2)
            scores = _half_tanh(query, keys[:alive], hidden[:alive]).flatten(0, 1) @ vectors
            scores = scores.view(alive, time, heads).transpose(1, 2)
            real = mask[:alive, None]
            if dropout:
                real = drop_tokens(real.expand_as(scores), dropout)
            weights = maps[start:stop].copy_(masked_softmax(scores, real))
            context = contexts[start:stop]
            torch.matmul(weights[:, :, None], values_of_heads[:alive], out=context.view(alive, heads, 1, -1))
            gate = gates[start:stop].addmm_(context, of_context)
            brought = torch.addmm(bias_hh, state[0], of_state, out=from_state[:alive])
            state = STEPS[len(first)](gate, brought, state, kept[start:stop], states[:, start:stop])
        ctx.rows = rows
        inputs = (x, keys, values, weight_ih, weight_hh, query_weight, energy, *first)
        ctx.save_for_backward(gates, kept, queries, states, contexts, maps, *inputs)
        return states[0], contexts, maps, *states[1:]

    @staticmethod
    def backward(ctx, of_states, of_contexts, of_maps, *of_cells):
        if torch.is_grad_enabled():
            raise NotImplementedError(
                'attention_implementation="chunked" can be differentiated once: take "eager" where a gradient is '
                "differentiated (create_graph=True)."
            )
        gates, kept, queries, states, contexts, maps, *inputs = ctx.saved_tensors
        x, keys, values, weight_ih, weight_hh, query_weight, energy, *first = inputs
        rows, heads, size, read = ctx.rows, len(energy), keys.shape[2], x.shape[1]
        with torch.autocast(keys.device.type, enabled=False):
            values_of_heads = values.unflatten(-1, (heads, -1)).transpose(1, 2)  # [R, heads, Tk, M / heads]
            vectors, weight_of_context = heads_apart(energy).mul_(2), weight_ih[:, read:]
            before = [_states_before(own, state, rows) for own, state in zip(states, first, strict=True)]
            of_input, of_hidden, back = BACKWARD[len(first)](gates, kept, before)
            of_state = [grad.clone() for grad in (of_states, *of_cells)]  # complete from the last step to the first
            of_first = [torch.zeros_like(state) for state in first]
            of_contexts, of_queries = of_contexts.clone(), torch.empty_like(queries)
            of_keys, of_vectors = torch.zeros_like(keys), torch.zeros_like(vectors)
            hidden, of_hidden_units = torch.empty_like(keys), torch.empty_like(keys)
            ends = [*accumulate(rows)]
            for step in range(len(rows) - 1, -1, -1):
                alive, now = rows[step], slice(ends[step] - rows[step], ends[step])
                if step:
                    start = ends[step - 1] - rows[step - 1]
                    earlier = [grad[start : start + alive] for grad in of_state]
                else:
                    earlier = [grad[:alive] for grad in of_first]
                back(now, [grad[now] for grad in of_state], earlier)
                of_context = of_contexts[now].addmm_(of_input[now], weight_of_context)
                of_map = of_maps[now] + (values_of_heads[:alive] @ of_context.view(alive, heads, -1, 1))[..., 0]
                of_scores = torch._softmax_backward_data(of_map, maps[now], -1, maps.dtype).transpose(1, 2).flatten(0, 1)
                near, grad = _half_tanh(queries[now], keys[:alive], hidden[:alive]), of_hidden_units[:alive]
                of_vectors.addmm_(near.flatten(0, 1).T, of_scores)
                torch.mm(of_scores, vectors.T, out=grad.view(-1, size))
                torch.ops.aten.sigmoid_backward.grad_input(grad, near, grad_input=grad)
                of_keys[:alive] += grad
                of_query = torch.sum(grad, dim=1, out=of_queries[now])
                earlier[0].addmm_(of_hidden[now], weight_hh).addmm_(of_query, query_weight, alpha=2)
            own = torch.arange(heads, device=keys.device)
            return (
                *(None, None, None),
                of_input @ weight_ih[:, :read],
                of_keys.mul_(2),
                _of_values(maps, of_contexts, values, rows),
                of_input.T @ torch.cat([x, contexts], dim=1),
                of_hidden.T @ before[0],
                of_input.sum(dim=0),
                of_hidden.sum(dim=0),
                of_queries.mul_(2).T @ before[0],
                of_vectors.mul_(2).unflatten(0, (heads, -1))[own, :, own],
                *of_first,
            )


def _half_tanh(query: torch.Tensor, keys: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Compute sigmoid(2 W q + 2 U h), `[rows, Tk, A]`; `query` is 2 W q."""
    return torch.add(query[:, None], keys, alpha=2, out=out).sigmoid_()


def _of_values(maps: torch.Tensor, of_contexts: torch.Tensor, values: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    """Sum over all steps what each value gets: weight times gradient of the context, `[R, Tk, M]`."""
    heads = maps.shape[1]
    maps, of_contexts = (_by_row(tensor.view(len(tensor), heads, -1), rows) for tensor in (maps, of_contexts))
    found = (maps.mT @ of_contexts).transpose(1, 2).flatten(2)  # of the rows that have a step
    return found if len(found) == len(values) else torch.cat([found, found.new_zeros(values[len(found) :].shape)])


def _by_row(x: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    """Bring cells `[N, heads, W]` of equal or ending rows into the order of rows: `[rows[0], heads, T, W]`, zeros at ends."""
    if rows[0] == rows[-1]:
        return x.unflatten(0, (len(rows), -1)).permute(1, 2, 0, 3)
    return pad_packed_sequence(PackedSequence(x, torch.tensor(rows)), batch_first=True)[0].transpose(1, 2)


def _states_before(states: torch.Tensor, first: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    """Give each cell the state of its row one step earlier, in the first step that before it: `[N, H]`."""
    steps = states.split(rows)
    return torch.cat([first[: rows[0]], *(step[:alive] for step, alive in zip(steps, rows[1:], strict=False))])
