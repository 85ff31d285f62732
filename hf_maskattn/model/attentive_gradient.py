"""A recurrence that attends to a memory at every step, and its gradient: the loop holds what must be sequential, no more.

Forward, a step is three matrix products, one pass of the attention and the gates. Backward, the derivatives of the gates are
elementwise, and taken once for all steps; what is left for the loop is linear in the gradient of the state. The gradients of
all weights are one product each over all steps, at the end.
"""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from .eager_attention import heads_apart
from .gate_steps import BACKWARD, SHIFT, STEPS, states_before
from .segments import Segment
from .softmax import drop_tokens, masked_softmax
from .tensor_checks import host_can_read


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
        memory: Keys `[S, Tk, A]`, values `[S, Tk, M]`, finite at pads, and mask `[S, Tk]`, bool, True = real. S is R, or R / n
            where n rows, one after the other, ask the same source.
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
    if len(mask) < len(first[0]):
        keys, values, mask = (tensor.repeat_interleave(len(first[0]) // len(mask), dim=0) for tensor in memory)
    tensors = [tensor.to(dtype) for tensor in (x, keys, values, *weights, *attention, *first)]
    with torch.autocast(x.device.type, enabled=False):
        if torch.is_grad_enabled():
            *states, contexts, maps = _AttentiveRecurrence.apply(rows, mask, dropout, *tensors)
        else:
            of_all, contexts, maps, *_ = _run(rows, mask, dropout, *tensors)
            states = [*of_all]
    return states[0], contexts, maps, tuple(tensor[len(x) - rows[-1] :] for tensor in states)


def _run(
    rows: Sequence[int],
    mask: torch.Tensor,
    dropout: float,
    x: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias_ih: torch.Tensor,
    bias_hh: torch.Tensor,
    query_weight: torch.Tensor,
    energy: torch.Tensor,
    *first: torch.Tensor,
) -> list[torch.Tensor]:
    """Take all steps: states, contexts, weights, and what else the gradient needs of them, which are activations."""
    (count, read), (_, time, size), (heads, _) = x.shape, keys.shape, energy.shape
    gates = torch.addmm(bias_ih, x, weight_ih[:, :read].T)  # [N, gates * H], of the tokens, to become activations
    of_context, of_state, of_query = weight_ih[:, read:].T, weight_hh.T, query_weight.T
    brought = bias_hh.expand(gates.shape).clone()  # by the state; a step adds its product
    queries = x.new_empty(count, size)  # 2 W q, for tanh(z) = 2 sigmoid(2 z) - 1
    states, maps = x.new_empty(len(first), count, len(of_state)), x.new_empty(count, heads, time)
    contexts = x.new_empty(count, values.shape[2])
    vectors = 2 * heads_apart(energy)  # [A, heads]; -sum(v), the same for all scores of a head, changes no weight
    values_of_heads, hidden = _of_heads(values, heads), torch.empty_like(keys)
    full, real, state = host_can_read(mask) and bool(mask.all()), mask.unsqueeze(1), [*first]
    by_step = (tensor.split(rows) for tensor in (gates, brought, queries, maps, contexts, *states))
    for of_input, of_both, query, weights, context, *after in zip(*by_step, strict=True):
        alive = query.shape[0]
        if alive != hidden.shape[0]:
            keys, hidden, real, *state = (tensor.narrow(0, 0, alive) for tensor in (keys, hidden, real, *state))
            values_of_heads = values_of_heads.narrow(0, 0, alive * heads)
        torch.mm(state[0], of_query, out=query).mul_(2)
        scores = _half_tanh(query, keys, hidden).flatten(0, 1) @ vectors
        scores = scores.view(alive, time, heads).transpose(1, 2)
        read_now = drop_tokens(real.expand_as(scores), dropout) if dropout else None if full else real
        weights.copy_(masked_softmax(scores, read_now))
        torch.bmm(weights.view(-1, 1, time), values_of_heads, out=context.view(alive * heads, 1, values_of_heads.shape[2]))
        of_input.addmm_(context, of_context)
        state = STEPS[len(first)](of_input, of_both.addmm_(state[0], of_state), state, after)
    return [states, contexts, maps, gates, brought, queries]


class _AttentiveRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, mask, dropout, *inputs):
        found = _run(rows, mask, dropout, *inputs)
        ctx.rows = rows
        ctx.save_for_backward(*found, *inputs)
        ctx.set_materialize_grads(False)
        return (*found[0], *found[1:3])

    @staticmethod
    def backward(ctx, *grads):
        if torch.is_grad_enabled():
            raise NotImplementedError(
                'attention_implementation="chunked" can be differentiated once: take "eager" where a gradient is '
                "differentiated (create_graph=True)."
            )
        states, contexts, maps, gates, brought, queries, *inputs = ctx.saved_tensors
        x, keys, values, weight_ih, weight_hh, _, _, query_weight, energy, *first = inputs
        rows, heads, size, read, width = ctx.rows, maps.shape[1], keys.shape[2], x.shape[1], states.shape[2]
        *of_states, of_contexts, of_maps = grads
        of_maps = None if of_maps is None else of_maps.split(rows)
        with torch.autocast(keys.device.type, enabled=False):
            before = [states_before(own, state, rows) for own, state in zip(states, first, strict=True)]
            shift, of_context = SHIFT[len(first)] * width, weight_ih[:, read:]
            of_state = torch.cat([2 * query_weight, weight_hh.roll(shift, dims=0)])
            of_all = gates.new_empty(len(gates), size + 4 * width)  # of 2 W q, and of the gates as both sides have them
            of_brought, of_input = of_all[:, : len(of_state)], of_all[:, -len(weight_hh) :]
            back = BACKWARD[len(first)](gates, brought[:, -width:], before, of_all[:, size:], rows)
            # Of states and contexts complete from the last step to the first.
            of_first = [torch.zeros_like(state) for state in first]
            of_states = [_given(grad, own).split(rows) for grad, own in zip(of_states, states, strict=True)]
            of_states = [*zip(*((start, *grads) for start, grads in zip(of_first, of_states, strict=True)), strict=True)]
            of_contexts = _given(of_contexts, contexts)
            vectors, values_of_heads = 2 * heads_apart(energy), _of_heads(values, heads).mT
            of_keys, of_vectors = torch.zeros_like(keys), torch.zeros_like(vectors)
            hidden, of_hidden = torch.empty_like(keys), torch.empty_like(keys)
            each = (queries, maps, of_contexts, of_input, of_brought, of_all[:, :size])
            by_step = [*zip(*(tensor.split(rows) for tensor in each), strict=True)]
            for step in range(len(rows) - 1, -1, -1):
                alive, (query, weights, of_read, of_gates, of_products, of_query) = rows[step], by_step[step]
                after, earlier = of_states[step + 1], [grad.narrow(0, 0, alive) for grad in of_states[step]]
                back(step, after, earlier)
                of_read.addmm_(of_gates, of_context)
                of_weights = torch.bmm(
                    of_read.view(alive * heads, 1, values_of_heads.shape[1]), values_of_heads.narrow(0, 0, alive * heads)
                ).view(weights.shape)
                if of_maps is not None:
                    of_weights += of_maps[step]
                of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype).transpose(1, 2).flatten(0, 1)
                near, grad = (tensor.narrow(0, 0, alive) for tensor in (hidden, of_hidden))
                _half_tanh(query, keys.narrow(0, 0, alive), near)
                of_vectors.addmm_(near.flatten(0, 1).T, of_scores)
                torch.mm(of_scores, vectors.T, out=grad.view(-1, size))
                torch.ops.aten.sigmoid_backward.grad_input(grad, near, grad_input=grad)
                of_keys.narrow(0, 0, alive).add_(grad)
                torch.sum(grad, dim=1, out=of_query)
                earlier[0].addmm_(of_products, of_state)
            own = torch.arange(heads, device=keys.device)
            of_query_weight, of_weight_hh = (of_brought.T @ before[0]).tensor_split([size])
            of_bias = of_all.sum(dim=0)
            return (
                *(None, None, None),
                of_input @ weight_ih[:, :read],
                of_keys.mul_(2),
                _of_values(maps, of_contexts, values, rows),
                of_input.T @ torch.cat([x, contexts], dim=1),
                of_weight_hh.roll(-shift, dims=0),
                of_bias[-len(weight_hh) :],
                of_bias[size : len(of_state)].roll(-shift),
                of_query_weight.mul_(2),
                of_vectors.mul_(2).unflatten(0, (heads, -1))[own, :, own],
                *of_first,
            )


def _given(grad: torch.Tensor | None, of: torch.Tensor) -> torch.Tensor:
    """Copy the gradient that came for a tensor, to be added to."""
    return torch.zeros_like(of) if grad is None else grad.clone(memory_format=torch.contiguous_format)


def _of_heads(values: torch.Tensor, heads: int) -> torch.Tensor:
    """Bring values `[R, Tk, M]` into the order of heads: `[R * heads, Tk, M / heads]`."""
    return values.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)


def _half_tanh(query: torch.Tensor, keys: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Compute sigmoid(2 W q + 2 U h), `[rows, Tk, A]`; `query` is 2 W q."""
    return torch.add(query[:, None], keys, alpha=2, out=out).sigmoid_()


def _of_values(maps: torch.Tensor, of_contexts: torch.Tensor, values: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    """Sum over all steps what each value gets: weight times gradient of the context, `[R, Tk, M]`."""
    heads = maps.shape[1]
    maps, of_contexts = _by_row(maps, rows), _by_row(of_contexts.unflatten(1, (heads, -1)), rows)
    found = (maps.mT @ of_contexts).transpose(1, 2).flatten(2)  # of the rows that have a step
    return found if len(found) == len(values) else torch.cat([found, found.new_zeros(values[len(found) :].shape)])


def _by_row(x: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    """Bring cells `[N, heads, W]` of equal or ending rows into the order of rows: `[rows[0], heads, T, W]`, zeros at ends."""
    if rows[0] == rows[-1]:
        return x.unflatten(0, (len(rows), rows[0])).permute(1, 2, 0, 3)
    return pad_packed_sequence(PackedSequence(x, torch.tensor(rows)), batch_first=True)[0].transpose(1, 2)
