"""A recurrent decoder with attention: reads a whole target at once in training, or continues from a state token by token.

The attention belongs to the first layer; the layers above read its context together with the states below them. So only the
first layer may have to run step by step, and every layer above runs the whole target in one kernel.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import pad

from .attention import AdditiveAttention
from .attention_functions import weighted_sum
from .decoder_layers import AttentiveLayer, PlainLayer
from .generation import DecodingState, Memory, count_rows_per_source
from .masking import TokenColumns, find_token_columns, is_host_readable
from .packing import PackedLayout, TimeChunk, build_packed_layout, pack_tokens, split_time_exactly, unpack_tokens
from .recurrence import RNN_TYPES
from .recurrent_kernel import choose_layout

QUERIES = ("previous", "current")


class DecoderOutput(NamedTuple):
    """The output of a decoder for a target of B rows and T columns; 0 at padding.

    Attributes:
        states: The states of each layer, `[B, T, H]`.
        contexts: The context of each step, `[B, T, M]`.
        weights: The attention weights of each step, `[B, heads, T, Tk]`, exactly 0 at padding of the source as well.
        state: The state to continue from; None if it was not requested.
    """

    states: tuple[torch.Tensor, ...]
    contexts: torch.Tensor
    weights: torch.Tensor
    state: DecodingState | None


class AttentiveDecoder(nn.Module):
    """Recurrent layers over a target, with additive attention over the annotations of a source.

    Args:
        input_size: Width E of an embedded target token.
        hidden_size: Width H of the state of each layer.
        memory_size: Width M of the annotations; even, the second half of each is the state of the backward encoder.
        num_layers: Number of layers.
        rnn_type: "lstm" or "gru".
        attention_query: Which state of the first layer is the query at step i: the "previous" one s_(i-1), so that the step
            itself reads the context (Bahdanau), or the "current" one s_i, which then depends on no context (Luong).
        input_feeding: Whether, with "current", the context of a step is read in the next one.
        attention_size: Width A of the projected queries and keys.
        num_heads: Number of attention heads; divides A and M.
        attention_dropout: Probability of each score to be dropped before the softmax in training.
        implementation: "eager", "ragged" or "chunked"; see `AdditiveAttention`.
        dropout: Dropout probability between layers.

    Raises:
        ValueError: If a choice is unknown, `num_layers` is below 1, or `input_feeding` is set with "previous".

    Source:
        Bahdanau et al. 2015 (arXiv:1409.0473), appendix A.2.2; Luong et al. 2015 (arXiv:1508.04025). For several layers Wu et
        al. 2016 (arXiv:1609.08144), section 3: the first layer attends, and all layers above read its context.
    """

    def __init__(
        self,
        *,
        input_size: int,
        hidden_size: int,
        memory_size: int,
        attention_size: int,
        num_layers: int = 1,
        rnn_type: str = "gru",
        attention_query: str = "previous",
        input_feeding: bool = False,
        num_heads: int = 1,
        attention_dropout: float = 0.0,
        implementation: str = "eager",
        dropout: float = 0.0,
    ):
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"decoder_layers must be at least 1, got {num_layers}.")
        if rnn_type not in RNN_TYPES:
            raise ValueError(f"rnn_type must be one of {[*RNN_TYPES]}, got {rnn_type!r}.")
        if attention_query not in QUERIES:
            raise ValueError(f"attention_query must be one of {[*QUERIES]}, got {attention_query!r}.")
        if input_feeding and attention_query == "previous":
            raise ValueError(
                "attention_query must be 'current' with input_feeding=True, got 'previous', with which each step reads its own "
                "context. Set one of the two."
            )
        self.rnn_type = rnn_type
        self.hidden_size = hidden_size
        self.states_per_layer = 2 if rnn_type == "lstm" else 1
        self.input_feeding = input_feeding
        self.dropout = nn.Dropout(dropout)
        self.first_state = nn.Linear(memory_size // 2, num_layers * self.states_per_layer * hidden_size)  # W_s
        self.attention = AdditiveAttention(
            query_size=hidden_size,
            memory_size=memory_size,
            attention_size=attention_size,
            num_heads=num_heads,
            dropout=attention_dropout,
            implementation=implementation,
        )
        first_layer: nn.Module
        if attention_query == "previous" or input_feeding:
            first_layer = AttentiveLayer(
                input_size=input_size,
                hidden_size=hidden_size,
                memory_size=memory_size,
                rnn_type=rnn_type,
                input_feeding=input_feeding,
            )
        else:
            first_layer = PlainLayer(input_size=input_size, hidden_size=hidden_size, rnn_type=rnn_type)
        self.layers = nn.ModuleList([first_layer])
        for _ in range(num_layers - 1):
            self.layers.append(PlainLayer(input_size=hidden_size + memory_size, hidden_size=hidden_size, rnn_type=rnn_type))

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor | None,
        state: DecodingState | None = None,
        source: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None,
        use_cache: bool = False,
        output_attentions: bool = False,
    ) -> DecoderOutput:
        """Read a target, from its start or from a state.

        Args:
            x: Embedded target tokens `[B, T, input_size]`, T >= 1; not read at padding.
            mask: `[B, T]`, bool, True = token, in any arrangement; padding leaves the state unchanged. None means that there is
                no padding.
            state: The state that an earlier call returned; it is not changed. None starts with the source.
            source: Where a target starts without a state: annotations `[B, Tk, M]`, not read at padding, their mask `[B, Tk]`,
                and the state of the backward encoder at the first token, `[B, M / 2]`.
            use_cache: Whether to return the state to continue from. For rows with padding it is computed column by column.
            output_attentions: Whether the returned contexts are computed from the returned weights, so that gradients reach
                the weights. The contexts differ from those that the cells read by rounding.
        """
        if state is None:
            if source is None:
                raise ValueError("One of `state` and `source` must be given, got neither.")
            state = self._start(*source)
        if mask is not None and is_host_readable(mask) and bool(mask.all()):
            mask = None
        if mask is not None and use_cache:
            return self._read_column_by_column(x, mask, state, output_attentions)
        layout = None if mask is None else self._choose_layout(mask)
        time_chunks = (TimeChunk(x.shape[1], x.shape[0]),) if layout is None else layout.time_chunks
        initial_states = state.layers
        if layout is not None and layout.sorted_indices is not None:
            initial_states = tuple(tuple(tensor[layout.sorted_indices] for tensor in layer) for layer in initial_states)
        first_layer, *layers_above = self.layers
        packed, contexts, weights, final_state = self._run_first_layer(
            first_layer, x, mask, time_chunks, layout, state, initial_states[0]
        )
        if output_attentions:
            contexts = _recompute_contexts(contexts, weights, state)
        states, final_states = [_unpack(packed, layout, x.shape)], [final_state]
        for layer, initial_state in zip(layers_above, initial_states[1:], strict=True):
            layer_input = torch.cat([self.dropout(states[-1]), contexts], dim=-1)  # [B, T, H + M]
            packed, final_state = layer(_pack(layer_input, layout), time_chunks, *initial_state)
            states.append(_unpack(packed, layout, x.shape))
            final_states.append(final_state)
        next_state = None
        if use_cache:
            latest_context = contexts[:, -1] if self.input_feeding else None
            next_state = DecodingState(tuple(final_states), latest_context, state.memory, state.seen_tokens + x.shape[1])
        return DecoderOutput(tuple(states), contexts, weights, next_state)

    def _start(self, memory: torch.Tensor, mask: torch.Tensor, summary: torch.Tensor) -> DecodingState:
        """Project the memory for all steps, and compute s_0 = tanh(W_s summary + b) of each layer, for an LSTM its cell too.

        For a source without a token the summary is 0, and so is every context.
        """
        tensors = torch.tanh(self.first_state(summary)).split(self.hidden_size, dim=-1)
        count = self.states_per_layer
        layers = tuple(tuple(tensors[start : start + count]) for start in range(0, len(tensors), count))
        context = memory.new_zeros(len(memory), memory.shape[2]) if self.input_feeding else None
        rows_per_source = count_rows_per_source(memory, mask)
        memory, mask = memory[::rows_per_source], mask[::rows_per_source]
        columns = find_token_columns(mask)
        if mask.shape[1] == 0:  # padding has no effect, but every parameter is used
            memory, mask, columns = pad(memory, (0, 0, 0, 1)), pad(mask, (0, 1)), TokenColumns(0, 1, 0)
        mask = columns.crop(mask)
        keys, values = self.attention.prepare(columns.crop(memory), mask)
        return DecodingState(layers, context, Memory(keys, values, mask, columns))

    def _run_first_layer(
        self,
        layer: nn.Module,
        x: torch.Tensor,
        target_mask: torch.Tensor | None,
        time_chunks: Sequence[TimeChunk],
        layout: PackedLayout | None,
        state: DecodingState,
        initial_state: tuple[torch.Tensor, ...],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
        """Run the first layer: states `[N, H]`, contexts `[B, T, M]`, weights `[B, heads, T, Tk]` and the final state."""
        memory, columns = state.memory, state.memory.columns
        packed = _pack(x, layout)  # [N, E]
        if isinstance(layer, AttentiveLayer):
            if layout is not None and layout.sorted_indices is not None:
                memory = memory.select_rows(layout.sorted_indices // state.rows_per_source)
            states, contexts, weights, final_state = layer(
                packed, time_chunks, self.attention, memory.keys, memory.values, memory.mask, state.context, *initial_state
            )
            contexts, weights = _unpack(contexts, layout, x.shape), _unpack(weights, layout, x.shape).transpose(1, 2)
            return states, contexts, columns.pad(weights, 3), final_state
        states, final_state = layer(packed, time_chunks, *initial_state)
        queries = _unpack(states, layout, x.shape)
        contexts, weights = self.attention(queries, (memory.keys, memory.values), memory.mask)
        if target_mask is not None:
            is_padding = ~target_mask[..., None]
            contexts, weights = contexts.masked_fill(is_padding, 0), weights.masked_fill(is_padding[:, None], 0)
        return states, contexts, columns.pad(weights, 3), final_state

    def _choose_layout(self, mask: torch.Tensor) -> PackedLayout | None:
        """Choose the layout of a target with padding; a layer that runs step by step needs whole columns unless it is fused."""
        if isinstance(self.layers[0], AttentiveLayer):
            lengths, time_chunks = mask.sum(dim=1), None
            if self.layers[0].is_fused(self.attention) and is_host_readable(mask):
                longest_first = sorted(lengths.tolist(), reverse=True)
                longest_first[0] = max(1, longest_first[0])
                time_chunks = split_time_exactly(longest_first)
            return build_packed_layout(mask, lengths, 1, time_chunks)
        return choose_layout(self.rnn_type, mask, 1, self.hidden_size)

    def _read_column_by_column(
        self, x: torch.Tensor, mask: torch.Tensor, state: DecodingState, output_attentions: bool
    ) -> DecoderOutput:
        """Read one column after the other, layer by layer, so that a row keeps its state where it has padding."""
        time_chunks = (TimeChunk(1, len(x)),)
        first_layer, *layers_above = self.layers

        def run_first_layer(column, layer_state):
            context, layer_state = (layer_state[0], layer_state[1:]) if self.input_feeding else (None, layer_state)
            column_state = replace(state, context=context)
            states, contexts, weights, next_state = self._run_first_layer(
                first_layer, column, None, time_chunks, None, column_state, layer_state
            )
            if self.input_feeding:
                next_state = (contexts[:, -1], *next_state)
            return [_unpack(states, None, column.shape), contexts, weights.transpose(1, 2)], next_state

        def run_layer(layer, column, layer_state):
            states, next_state = layer(_pack(column, None).contiguous(), time_chunks, *layer_state)
            return [_unpack(states, None, column.shape)], next_state

        x = x.masked_fill(~mask[..., None], 0)
        initial_state = state.layers[0] if state.context is None else (state.context, *state.layers[0])
        (layer_states, contexts, weights), final_state = _scan_columns(run_first_layer, x, mask, initial_state)
        context, final_state = (final_state[0], final_state[1:]) if self.input_feeding else (None, final_state)
        weights = weights.transpose(1, 2)  # [B, heads, T, Tk]
        if output_attentions:
            contexts = _recompute_contexts(contexts, weights, state)
        states, final_states = [layer_states], [final_state]
        for layer, initial_state in zip(layers_above, state.layers[1:], strict=True):
            layer_input = torch.cat([self.dropout(states[-1]), contexts], dim=-1)
            (layer_states,), final_state = _scan_columns(partial(run_layer, layer), layer_input, mask, initial_state)
            states.append(layer_states)
            final_states.append(final_state)
        next_state = DecodingState(tuple(final_states), context, state.memory, state.seen_tokens + x.shape[1])
        return DecoderOutput(tuple(states), contexts, weights, next_state)


def _scan_columns(
    run: Callable[..., tuple[list[torch.Tensor], tuple[torch.Tensor, ...]]],
    x: torch.Tensor,
    mask: torch.Tensor,
    initial_state: tuple[torch.Tensor, ...],
) -> tuple[list[torch.Tensor], tuple[torch.Tensor, ...]]:
    """Run a layer over one column of `x` `[B, T, W]` after the other; padding leaves the state of a row unchanged.

    Args:
        run: Maps a column `[B, 1, W]` and a state to outputs, each `[B, 1, ...]`, and the next state.
        x: `[B, T, W]`.
        mask: `[B, T]`, bool, True = token.
        initial_state: The state before the first column, each tensor `[B, ...]`.

    Returns:
        The outputs of all columns, each `[B, T, ...]`, 0 at padding; the final state.
    """
    outputs, state = [], initial_state
    for column, is_token in zip(x.split(1, dim=1), mask.unbind(dim=1), strict=True):
        column_outputs, next_state = run(column, state)
        outputs.append(column_outputs)
        state = tuple(torch.where(is_token[:, None], new, old) for new, old in zip(next_state, state, strict=True))
    joined = []
    for columns in zip(*outputs, strict=True):
        output = torch.cat(columns, dim=1)
        is_padding = ~mask.view(*mask.shape, *[1] * (output.dim() - 2))
        joined.append(output.masked_fill(is_padding, 0))
    return joined, state


def _recompute_contexts(contexts: torch.Tensor, weights: torch.Tensor, state: DecodingState) -> torch.Tensor:
    """Compute the contexts `[B, T, M]` from the weights `[B, heads, T, Tk]`, where a gradient may be needed."""
    has_source_columns = weights.shape[3] > 0
    if not (torch.is_grad_enabled() and weights.requires_grad and has_source_columns):
        return contexts
    values = state.memory.padded_values().repeat_interleave(state.rows_per_source, dim=0)
    columns = state.memory.columns
    return weighted_sum(weights.narrow(3, columns.start, columns.stop - columns.start), values).to(contexts.dtype)


def _pack(x: torch.Tensor, layout: PackedLayout | None) -> torch.Tensor:
    """Pack tokens `[B, T, W]` step by step: `[N, W]`."""
    return x.transpose(0, 1).flatten(0, 1) if layout is None else pack_tokens(x, layout)[0, :-1]


def _unpack(packed: torch.Tensor, layout: PackedLayout | None, shape: torch.Size) -> torch.Tensor:
    """Unpack `[N, ...]` to `[B, T, ...]`; 0 at padding."""
    if layout is None:
        return packed.view(shape[1], shape[0], *packed.shape[1:]).transpose(0, 1)
    flat = packed.flatten(1)
    with_padding = torch.cat([flat, flat.new_zeros(1, flat.shape[1])])
    return unpack_tokens(with_padding[None], layout).unflatten(-1, packed.shape[1:])
