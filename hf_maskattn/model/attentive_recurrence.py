"""A recurrence that attends to a memory at every step (Bahdanau et al. 2015): a plain loop, and a fused form for training.

With the encoder outputs h_j, the previous state s_(i-1) and the embedded target token y_(i-1), a step is (appendix A.2.2)
    e_ij = v . tanh(W s_(i-1) + U h_j)        scores
    a_ij = softmax_j(e_ij)                    weights
    c_i  = sum_j a_ij h_j                     context
    s_i  = RNN([y_(i-1); c_i], s_(i-1))       state
`attentive_recurrence` is this loop over any attention and with any compiler. `packed_attentive_recurrence` has the same numbers
and a gradient of its own, 1.3 times as fast for a training step of 32 pairs of 50 x 50 tokens on a CPU core, and it keeps
tanh(W s + U h) for one step at a time instead of for all.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from .attention_functions import energy_matrix
from .masking import drop_tokens, is_host_readable, masked_softmax
from .packing import TimeChunk
from .recurrent_autograd import BACKWARD_CLASSES, HIDDEN_GATE_ROTATION, STEP_FUNCTIONS, previous_states

CELLS: dict[str, Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]] = {"lstm": torch.lstm_cell, "gru": torch.gru_cell}


def attentive_recurrence(
    rnn_type: str,
    x: torch.Tensor,
    parameters: Sequence[torch.Tensor],
    attend: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    initial_state: Sequence[torch.Tensor],
    initial_context: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
    """Run a cell over a target; its input at each step is a token and a context.

    Args:
        rnn_type: "lstm" or "gru".
        x: `[T, B, E]`, the embedded target tokens, T >= 1.
        parameters: torch's `weight_ih` `[gates * H, E + M]`, which reads the token and then the context, `weight_hh`
            `[gates * H, H]`, `bias_ih` and `bias_hh` `[gates * H]`.
        attend: Maps states `[B, H]` to a context `[B, M]` and weights `[B, heads, Tk]`.
        initial_state: The state before the first step, `[B, H]`; for an LSTM its cell as well.
        initial_context: None where the previous state is the query for the context that the cell reads (Bahdanau). Otherwise
            the new state is the query, its context is read in the next step (input feeding), and this is the context that the
            first step reads, `[B, M]`.

    Returns:
        States `[T * B, H]`, contexts `[T * B, M]` and weights `[T * B, heads, Tk]`, one step after the other; the final state,
        as `initial_state`.

    Source:
        Bahdanau et al. 2015 (arXiv:1409.0473), appendix A.2.2; Luong et al. 2015 (arXiv:1508.04025), section 3.3, for input
        feeding.
    """
    state: tuple[torch.Tensor, ...] = tuple(initial_state)
    context = initial_context
    states: list[torch.Tensor] = []
    contexts: list[torch.Tensor] = []
    weights: list[torch.Tensor] = []

    def attend_from(query: torch.Tensor) -> torch.Tensor:
        step_context, step_weights = attend(query)
        contexts.append(step_context)
        weights.append(step_weights)
        return step_context

    for token in x.unbind():
        read_context = attend_from(state[0]) if context is None else context
        cell_input = torch.cat([token, read_context], dim=-1)
        next_state = CELLS[rnn_type](cell_input, state if rnn_type == "lstm" else state[0], *parameters)
        state = (next_state,) if isinstance(next_state, torch.Tensor) else tuple(next_state)
        states.append(state[0])
        if context is not None:
            context = attend_from(state[0])
    return _join_steps(states), _join_steps(contexts), _join_steps(weights), state


def _join_steps(steps: list[torch.Tensor]) -> torch.Tensor:
    """Join `[B, ...]` of each step to `[T * B, ...]`; a single step, as in decoding, is not copied."""
    return torch.cat(steps) if len(steps) > 1 else steps[0]


def packed_attentive_recurrence(
    x: torch.Tensor,
    parameters: Sequence[torch.Tensor],
    attention: tuple[torch.Tensor, torch.Tensor],
    memory: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    time_chunks: Sequence[TimeChunk],
    initial_state: Sequence[torch.Tensor],
    dropout: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
    """Run a cell over a packed target; at each step it reads a token and the context for which its previous state is the query.

    The same numbers as `attentive_recurrence` with additive attention, up to the order of summation.

    Args:
        x: `[N, E]`, the embedded target tokens at the positions of the chunks, one step after the other.
        parameters: torch's `weight_ih` `[gates * H, E + M]`, which reads the token and then the context, `weight_hh`
            `[gates * H, H]`, `bias_ih` and `bias_hh` `[gates * H]`.
        attention: The query projection W `[A, H]`, and the vector v of each head, `[heads, A / heads]`.
        memory: Keys `[S, Tk, A]`, values `[S, Tk, M]`, finite at padding, and mask `[S, Tk]`, bool, True = token. S is R, or
            R / n where n consecutive rows share a source.
        time_chunks: Steps and rows of each chunk; the number of rows never increases.
        initial_state: The state before the first step, `[R, H]`; for an LSTM its cell as well, which makes the cell an LSTM.
        dropout: Probability of each score to be dropped before the softmax.

    Returns:
        States `[N, H]`; contexts `[N, M]`; weights `[N, heads, Tk]`; the final state of the rows of the last chunk, as
        `initial_state`.

    Numerics:
        tanh(W s + U h) exists for one step at a time and is computed again for the gradient. It can be differentiated once.
        Under autocast it runs in the dtype of its weights.

    Source:
        Bahdanau et al. 2015 (arXiv:1409.0473), appendix A.2.2; the GRU and the LSTM in torch's form.
    """
    batch_sizes = [chunk.rows for chunk in time_chunks for _ in range(chunk.steps)]
    dtype = parameters[1].dtype
    keys, values, mask = memory
    rows_per_source = len(initial_state[0]) // len(mask) if len(mask) else 1
    if rows_per_source > 1:
        keys, values, mask = (tensor.repeat_interleave(rows_per_source, dim=0) for tensor in memory)
    tensors = [tensor.to(dtype) for tensor in (x, keys, values, *parameters, *attention, *initial_state)]
    with torch.autocast(x.device.type, enabled=False):
        if torch.is_grad_enabled():
            *states, contexts, weights = _PackedAttentiveRecurrence.apply(batch_sizes, mask, dropout, *tensors)
        else:
            activations = _forward(batch_sizes, mask, dropout, *tensors)
            states, contexts, weights = list(activations.states), activations.contexts, activations.weights
    final_state = tuple(tensor[len(x) - batch_sizes[-1] :] for tensor in states)
    return states[0], contexts, weights, final_state


class _Activations(NamedTuple):
    """What the forward pass computes, and the backward pass needs, at all N positions.

    Attributes:
        states: `[1 or 2, N, H]`, h and for an LSTM c.
        contexts: `[N, M]`.
        weights: `[N, heads, Tk]`.
        gates: `[N, gates * H]`, the activations of the gates.
        hidden_gates: `[N, gates * H]`, W_h s + b_h, as `gru_step` and `lstm_step` leave it.
        queries: `[N, A]`, 2 W s.
    """

    states: torch.Tensor
    contexts: torch.Tensor
    weights: torch.Tensor
    gates: torch.Tensor
    hidden_gates: torch.Tensor
    queries: torch.Tensor


def _forward(
    batch_sizes: Sequence[int],
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
    *initial_state: torch.Tensor,
) -> _Activations:
    positions, embedding_size = x.shape
    _, time, attention_size = keys.shape
    heads, memory_size, width = len(energy), values.shape[2], weight_hh.shape[1]
    token_weight, context_weight = weight_ih[:, :embedding_size], weight_ih[:, embedding_size:]
    gates = torch.addmm(bias_ih, x, token_weight.T)  # [N, gates * H], the part of the tokens; a step adds its context
    activations = _Activations(
        states=x.new_empty(len(initial_state), positions, width),
        contexts=x.new_empty(positions, memory_size),
        weights=x.new_empty(positions, heads, time),
        gates=gates,
        hidden_gates=bias_hh.expand(gates.shape).clone(),
        queries=x.new_empty(positions, attention_size),
    )
    step_function = STEP_FUNCTIONS[len(initial_state)]
    vectors = 2 * energy_matrix(energy)  # [A, heads], see `_half_tanh`
    head_values = _split_heads(values, heads)  # [R * heads, Tk, M / heads]
    hidden = torch.empty_like(keys)  # [R, Tk, A]
    has_no_padding = is_host_readable(mask) and bool(mask.all())
    state = list(initial_state)
    start = 0
    for rows in batch_sizes:
        end = start + rows
        state = [tensor[:rows] for tensor in state]
        query, context = activations.queries[start:end], activations.contexts[start:end]
        # e = v . tanh(W s + U h)
        torch.mm(state[0], query_weight.T, out=query).mul_(2)
        scores = _half_tanh(query, keys[:rows], hidden[:rows]).flatten(0, 1) @ vectors
        scores = scores.view(rows, time, heads).transpose(1, 2)  # [rows, heads, Tk]
        # a = softmax(e)
        attended = None if has_no_padding else mask[:rows, None]
        if dropout:
            attended = drop_tokens(mask[:rows, None].expand_as(scores), dropout)
        weights = activations.weights[start:end].copy_(masked_softmax(scores, attended))
        # c = a h
        step_values = head_values[: rows * heads]
        torch.bmm(weights.view(-1, 1, time), step_values, out=context.view(rows * heads, 1, step_values.shape[2]))
        # s = RNN([y; c], s)
        input_gates = gates[start:end].addmm_(context, context_weight.T)
        hidden_gates = activations.hidden_gates[start:end].addmm_(state[0], weight_hh.T)
        state = step_function(input_gates, hidden_gates, state, [states[start:end] for states in activations.states])
        start = end
    return activations


class _PackedAttentiveRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, batch_sizes, mask, dropout, *inputs):
        activations = _forward(batch_sizes, mask, dropout, *inputs)
        ctx.batch_sizes = batch_sizes
        ctx.save_for_backward(*activations, *inputs)
        ctx.set_materialize_grads(False)
        return (*activations.states, activations.contexts, activations.weights)

    @staticmethod
    def backward(ctx, *grad_outputs):
        if torch.is_grad_enabled():
            raise NotImplementedError(
                'attention_implementation="chunked" can be differentiated once. Use "eager" where a gradient is '
                "differentiated (create_graph=True)."
            )
        saved = ctx.saved_tensors
        activations, inputs = _Activations(*saved[:6]), saved[6:]
        *grad_states, grad_contexts, grad_weights = grad_outputs
        with torch.autocast(inputs[0].device.type, enabled=False):
            grads = _backward(ctx.batch_sizes, activations, inputs, grad_states, grad_contexts, grad_weights)
        return None, None, None, *grads


def _backward(
    batch_sizes: Sequence[int],
    activations: _Activations,
    inputs: Sequence[torch.Tensor],
    grad_states: Sequence[torch.Tensor | None],
    grad_contexts: torch.Tensor | None,
    grad_weights: torch.Tensor | None,
) -> list[torch.Tensor]:
    """Compute the gradients of `inputs`, which are x, keys and all that follows them in `_forward`."""
    x, keys, values, weight_ih, weight_hh, _, _, query_weight, energy, *initial_state = inputs
    embedding_size, attention_size, width = x.shape[1], keys.shape[2], weight_hh.shape[1]
    rotation = HIDDEN_GATE_ROTATION[len(initial_state)] * width
    gate_sizes = len(weight_hh)
    previous = [
        previous_states(states, initial, batch_sizes) for states, initial in zip(activations.states, initial_state, strict=True)
    ]
    # One row per position: the gradient of 2 W s, then those of the gates, see `GRUBackward`. What the previous state was
    # multiplied by (W and W_h) comes first, so that its gradient is one product a step.
    #   GRU:   2 W s | h_n | r | z | i_n    hidden gates h_n, r, z; input gates r, z, i_n
    #   LSTM:  2 W s | i | f | g | o        hidden and input gates i, f, g, o
    grad_products = x.new_empty(len(x), attention_size + 4 * width)
    grad_queries, grad_gates = grad_products[:, :attention_size], grad_products[:, attention_size:]
    grad_hidden_products = grad_products[:, : attention_size + gate_sizes]  # of 2 W s and of W_h s
    grad_input_gates = grad_products[:, -gate_sizes:]
    state_weight = torch.cat([2 * query_weight, weight_hh.roll(rotation, dims=0)])  # [A + gates * H, H]
    context_weight = weight_ih[:, embedding_size:]
    cell = BACKWARD_CLASSES[len(initial_state)](
        activations.gates, activations.hidden_gates[:, -width:], previous, grad_gates, batch_sizes
    )
    attention = _AttentionBackward(keys, values, energy)
    grad_initial_state = [torch.zeros_like(state) for state in initial_state]
    grads = [_copy_grad(grad, states) for grad, states in zip(grad_states, activations.states, strict=True)]
    grad_contexts = _copy_grad(grad_contexts, activations.contexts)
    end = len(x)
    for step in range(len(batch_sizes) - 1, -1, -1):
        rows = batch_sizes[step]
        start = end - rows
        grad_state = [grad[start:end] for grad in grads]
        if step:
            previous_start = start - batch_sizes[step - 1]
            grad_previous = [grad[previous_start : previous_start + rows] for grad in grads]
        else:
            grad_previous = [grad[:rows] for grad in grad_initial_state]
        cell.step(step, grad_state, grad_previous)
        grad_context = grad_contexts[start:end].addmm_(grad_input_gates[start:end], context_weight)
        attention.step(
            query=activations.queries[start:end],
            weights=activations.weights[start:end],
            grad_context=grad_context,
            grad_weights=None if grad_weights is None else grad_weights[start:end],
            grad_query=grad_queries[start:end],
        )
        grad_previous[0].addmm_(grad_hidden_products[start:end], state_weight)
        end = start
    grad_state_weight = grad_hidden_products.T @ previous[0]
    grad_biases = grad_products.sum(dim=0)
    grad_bias_hh = grad_biases[attention_size : attention_size + gate_sizes].roll(-rotation)
    return [
        grad_input_gates @ weight_ih[:, :embedding_size],  # x
        attention.grad_keys.mul_(2),
        _grad_values(activations.weights, grad_contexts, values, batch_sizes),
        grad_input_gates.T @ torch.cat([x, activations.contexts], dim=1),  # weight_ih
        grad_state_weight[attention_size:].roll(-rotation, dims=0),  # weight_hh
        grad_biases[-gate_sizes:],  # bias_ih
        grad_bias_hh,
        grad_state_weight[:attention_size].mul_(2),  # query_weight
        attention.grad_energy(),
        *grad_initial_state,
    ]


class _AttentionBackward:
    """The gradients of additive attention, accumulated step by step; tanh(W s + U h) is computed again for each step.

    Args:
        keys: `[R, Tk, A]`.
        values: `[R, Tk, M]`.
        energy: `[heads, A / heads]`.

    Attributes:
        grad_keys: `[R, Tk, A]`, the gradient of 2 U h.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, energy: torch.Tensor):
        self.keys = keys
        self.heads = len(energy)
        self.vectors = 2 * energy_matrix(energy)  # [A, heads]
        self.head_values = _split_heads(values, self.heads).mT  # [R * heads, M / heads, Tk]
        self.grad_keys = torch.zeros_like(keys)
        self.grad_vectors = torch.zeros_like(self.vectors)
        self.hidden = torch.empty_like(keys)
        self.grad_hidden = torch.empty_like(keys)

    def step(
        self,
        *,
        query: torch.Tensor,
        weights: torch.Tensor,
        grad_context: torch.Tensor,
        grad_weights: torch.Tensor | None,
        grad_query: torch.Tensor,
    ) -> None:
        """Go back through the attention of one step; `grad_query`, the gradient of 2 W s, is written."""
        rows, _, time = weights.shape
        hidden, grad_hidden = self.hidden[:rows], self.grad_hidden[:rows]
        # c = a h
        by_head = grad_context.view(rows * self.heads, 1, self.head_values.shape[1])
        grad_step_weights = torch.bmm(by_head, self.head_values[: rows * self.heads]).view(weights.shape)
        if grad_weights is not None:
            grad_step_weights += grad_weights
        # a = softmax(e)
        grad_scores = torch._softmax_backward_data(grad_step_weights, weights, -1, weights.dtype)
        grad_scores = grad_scores.transpose(1, 2).flatten(0, 1)  # [rows * Tk, heads]
        # e = 2 v . sigmoid(2 W s + 2 U h)
        _half_tanh(query, self.keys[:rows], hidden)
        self.grad_vectors.addmm_(hidden.flatten(0, 1).T, grad_scores)
        torch.mm(grad_scores, self.vectors.T, out=grad_hidden.view(rows * time, grad_hidden.shape[2]))
        torch.ops.aten.sigmoid_backward.grad_input(grad_hidden, hidden, grad_input=grad_hidden)
        self.grad_keys[:rows] += grad_hidden
        torch.sum(grad_hidden, dim=1, out=grad_query)

    def grad_energy(self) -> torch.Tensor:
        """Return the gradient of the vectors v, `[heads, A / heads]`."""
        head = torch.arange(self.heads, device=self.keys.device)
        return self.grad_vectors.mul_(2).unflatten(0, (self.heads, -1))[head, :, head]


def _half_tanh(query: torch.Tensor, keys: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Compute sigmoid(2 W s + 2 U h), `[rows, Tk, A]`; `query` is 2 W s.

    tanh(z) = 2 sigmoid(2 z) - 1, and torch's sigmoid is the faster one on a CPU. The constant -sum(v) that is left out is the
    same for all scores of a head and changes no weight.
    """
    return torch.add(query[:, None], keys, alpha=2, out=out).sigmoid_()


def _split_heads(values: torch.Tensor, heads: int) -> torch.Tensor:
    """Give each head its slice of the values: `[R, Tk, M]` -> `[R * heads, Tk, M / heads]`."""
    return values.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)


def _copy_grad(grad: torch.Tensor | None, output: torch.Tensor) -> torch.Tensor:
    """Copy the gradient of an output, to be added to; zeros where there is none."""
    return torch.zeros_like(output) if grad is None else grad.clone(memory_format=torch.contiguous_format)


def _grad_values(
    weights: torch.Tensor, grad_contexts: torch.Tensor, values: torch.Tensor, batch_sizes: Sequence[int]
) -> torch.Tensor:
    """Compute the gradient of the values `[R, Tk, M]`: over all steps, the sum of weight times gradient of the context."""
    heads = weights.shape[1]
    weights_by_row = _unpack_rows(weights, batch_sizes)  # [rows, heads, T, Tk]
    grads_by_row = _unpack_rows(grad_contexts.unflatten(1, (heads, -1)), batch_sizes)  # [rows, heads, T, M / heads]
    grad = (weights_by_row.mT @ grads_by_row).transpose(1, 2).flatten(2)
    rows_without_step = values[len(grad) :]
    return torch.cat([grad, torch.zeros_like(rows_without_step)]) if len(rows_without_step) else grad


def _unpack_rows(packed: torch.Tensor, batch_sizes: Sequence[int]) -> torch.Tensor:
    """Bring packed values `[N, heads, W]` into rows `[rows, heads, T, W]`, 0 after the end of a row."""
    if batch_sizes[0] == batch_sizes[-1]:
        return packed.unflatten(0, (len(batch_sizes), batch_sizes[0])).permute(1, 2, 0, 3)
    sequence = PackedSequence(packed, torch.tensor(batch_sizes))
    return pad_packed_sequence(sequence, batch_first=True)[0].transpose(1, 2)
