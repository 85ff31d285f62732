"""A recurrent decoder that attends: to be taught a whole target at once, or to go on from a state word by word.

The attention belongs to the first layer; the layers above read its context beside the states below them. So the first layer
alone may have to go step by step, and every layer above runs the whole target in one kernel.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import pad

from .attention import AdditiveAttention
from .cells import CellLayout, cell_layout, from_cells, to_cells
from .decoder_layers import AttentiveLayer, PlainLayer
from .decoding_state import DecodingState, Memory, count_rows_per_source
from .eager_attention import weighted_sum
from .gradient_path import TensorRecorder, compute_from
from .masking import RealColumns, real_columns
from .recurrence import RNN_TYPES
from .recurrent_kernel import arrange
from .segments import Segment, exact_segments
from .tensor_checks import host_can_read

QUERIES = ("previous", "current")


class DecoderOutput(NamedTuple):
    """What a decoder makes of a target of B rows and T columns; 0 at pads.

    Attributes:
        states: The states of each layer, `[B, T, H]`.
        contexts: What the attention read at each step, `[B, T, M]`.
        weights: How it read, `[B, heads, T, Tk]`, exactly 0 at pads of the source, too.
        state: The state to go on from; None if it was not asked for.
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
        attention_query: Which state of the first layer asks at step i: the "previous" one s_(i-1), whose context the step
            itself reads (Bahdanau), or the "current" one s_i, which so depends on no context (Luong).
        input_feeding: Whether, under "current", the context of a step is read in the next one.
        attention_size: As in `AdditiveAttention`, as are `num_heads`, `attention_dropout` and `implementation`.
        dropout: Dropout between layers.

    Raises:
        ValueError: If a choice is unknown, `num_layers` is below 1, or `input_feeding` has no meaning.

    Source:
        Bahdanau et al. 2015 (arXiv:1409.0473), appendix A.2.2; Luong et al. 2015 (arXiv:1508.04025). For several layers Wu et
        al. 2016 (arXiv:1609.08144), section 3: the first layer attends, and all above read its context.
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
            raise ValueError(f"decoder_layers={num_layers} must be at least 1.")
        if rnn_type not in RNN_TYPES:
            raise ValueError(f"rnn_type={rnn_type!r} is unknown; choose from {[*RNN_TYPES]}.")
        if attention_query not in QUERIES:
            raise ValueError(f"attention_query={attention_query!r} is unknown; choose from {[*QUERIES]}.")
        if input_feeding and attention_query == "previous":
            raise ValueError(
                "input_feeding=True needs attention_query='current': with 'previous' each step reads its own context."
            )
        self.rnn_type = rnn_type
        self.hidden_size = hidden_size
        self.states_of_layer = 2 if rnn_type == "lstm" else 1
        self.input_feeding = input_feeding
        self.dropout = nn.Dropout(dropout)
        self.first_state = nn.Linear(memory_size // 2, num_layers * self.states_of_layer * hidden_size)  # W_s
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
                feeds_input=input_feeding,
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
        keep_state: bool = False,
        hidden_states: TensorRecorder | None = None,
        attentions: TensorRecorder | None = None,
    ) -> DecoderOutput:
        """Read a target, from its beginning or from a state.

        Args:
            x: Embedded target tokens `[B, T, input_size]`, T >= 1; what stands at pads is not read.
            mask: `[B, T]`, bool, True = real, in any arrangement; a token that is not real leaves the state untouched. None
                means that all are.
            state: What an earlier call returned; it stays as it is. None begins with the source.
            source: What a target begins with, where there is no state: annotations `[B, Tk, M]`, whose values at pads are not
                read, their mask `[B, Tk]`, and the state of the backward encoder at the first real token, `[B, M / 2]`.
            keep_state: Whether to return the state to go on from. Of rows that have pads it is found column by column.
            hidden_states: Records the states of each layer.
            attentions: Records the weights, over all columns of the source.
        """
        if state is None:
            if source is None:
                raise ValueError("A target begins with a `source`, or goes on from a `state`: neither was given.")
            state = self._start(*source)
        if mask is not None and host_can_read(mask) and bool(mask.all()):
            mask = None
        if mask is not None and keep_state:
            return self._column_by_column(x, mask, state, hidden_states, attentions)
        cells = None if mask is None else self._arrange(mask)
        segments = (Segment(x.shape[1], x.shape[0]),) if cells is None else cells.segments
        order = None if cells is None else cells.order
        first = state.layers
        if order is not None:
            first = tuple(tuple(tensor[order] for tensor in layer) for layer in first)
        lowest, *above = self.layers
        states, contexts, weights, last = self._attend(lowest, x, mask, segments, cells, state, first[0])
        if attentions is not None:
            contexts = _record_weights(attentions, weights, contexts, state)
        record = _unchanged if hidden_states is None else hidden_states.record
        all_states, all_last = [record(_from_steps(states, cells, x.shape))], [last]
        if above:
            read = _to_steps(contexts, cells)  # [N, M]
        for layer, first_of_layer in zip(above, first[1:], strict=True):
            if hidden_states is not None:
                states = compute_from(states, _to_steps(all_states[-1], cells))
            states, last = layer(torch.cat([self.dropout(states), read], dim=-1), segments, *first_of_layer)
            all_states.append(record(_from_steps(states, cells, x.shape)))
            all_last.append(last)
        after = None
        if keep_state:
            fed = contexts[:, -1] if self.input_feeding else None
            after = DecodingState(tuple(all_last), fed, state.memory, state.seen_tokens + x.shape[1])
        return DecoderOutput(tuple(all_states), contexts, weights, after)

    def _start(self, memory: torch.Tensor, mask: torch.Tensor, summary: torch.Tensor) -> DecodingState:
        """Prepare the memory for all steps, and make s_0 = tanh(W_s summary + b) of each layer, of an LSTM its cell likewise.

        Of a source without a real token the summary is 0, and so is every context.
        """
        states = torch.tanh(self.first_state(summary)).split(self.hidden_size, dim=-1)
        layers = tuple(
            tuple(states[start : start + self.states_of_layer]) for start in range(0, len(states), self.states_of_layer)
        )
        fed = memory.new_zeros(len(memory), memory.shape[2]) if self.input_feeding else None
        rows_per_source = count_rows_per_source(memory, mask)
        memory, mask = memory[::rows_per_source], mask[::rows_per_source]
        columns = real_columns(mask)
        if mask.shape[1] == 0:  # a pad changes nothing, and with it every parameter takes part
            memory, mask, columns = pad(memory, (0, 0, 0, 1)), pad(mask, (0, 1)), RealColumns(0, 1, 0)
        mask = columns.cut(mask)
        keys, values = self.attention.prepare(columns.cut(memory), mask)
        return DecodingState(layers, fed, Memory(keys, values, mask, columns))

    def _attend(
        self,
        layer: nn.Module,
        x: torch.Tensor,
        target_mask: torch.Tensor | None,
        segments: Sequence[Segment],
        cells: CellLayout | None,
        state: DecodingState,
        first: tuple[torch.Tensor, ...],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
        """Run the first layer: states `[N, H]`, contexts `[B, T, M]`, weights `[B, heads, T, Tk]` and the last state."""
        memory, columns = state.memory, state.memory.columns
        if cells is not None and cells.order is not None and isinstance(layer, AttentiveLayer):
            memory = memory.take_rows(cells.order // state.rows_per_source)
        keys, values, mask, _ = memory
        steps = _to_steps(x, cells)  # [N, E]
        if isinstance(layer, AttentiveLayer):
            states, contexts, weights, last = layer(steps, segments, self.attention, keys, values, mask, state.context, *first)
            maps = _from_steps(weights, cells, x.shape)  # [B, T, heads, Tk]
            return states, _from_steps(contexts, cells, x.shape), columns.widen(maps.transpose(1, 2), 3), last
        states, last = layer(steps, segments, *first)
        contexts, weights = self.attention(_from_steps(states, cells, x.shape), (keys, values), mask)
        if target_mask is not None:
            pads = ~target_mask[..., None]
            contexts, weights = contexts.masked_fill(pads, 0), weights.masked_fill(pads[:, None], 0)
        return states, contexts, columns.widen(weights, 3), last

    def _arrange(self, mask: torch.Tensor) -> CellLayout | None:
        """Choose the order in which a target with pads is read: a layer that goes step by step takes whole columns."""
        if isinstance(self.layers[0], AttentiveLayer):
            lengths, segments = mask.sum(dim=1), None
            if self.layers[0].is_fused(self.attention) and host_can_read(mask):
                longest_first = sorted(lengths.tolist(), reverse=True)
                segments = exact_segments([max(1, longest_first[0]), *longest_first[1:]])
            return cell_layout(mask, lengths, 1, segments)
        return arrange(self.rnn_type, mask, 1, self.hidden_size)

    def _column_by_column(
        self,
        x: torch.Tensor,
        mask: torch.Tensor,
        state: DecodingState,
        hidden_states: TensorRecorder | None,
        attentions: TensorRecorder | None,
    ) -> DecoderOutput:
        """Read tokens one at a time, layer by layer, so that a row keeps its state where it has a pad."""
        segments = (Segment(1, len(x)),)
        record = _unchanged if hidden_states is None else hidden_states.record
        lowest, *above = self.layers

        def run_lowest(column: torch.Tensor, first: tuple[torch.Tensor, ...]) -> tuple[list, tuple[torch.Tensor, ...]]:
            context, first = (first[-1], first[:-1]) if self.input_feeding else (None, first)
            before = replace(state, context=context)
            states, contexts, weights, last = self._attend(lowest, column, None, segments, None, before, first)
            found = [_from_steps(states, None, column.shape), contexts, weights.transpose(1, 2)]
            return found, (*last, contexts[:, -1]) if self.input_feeding else last

        first = state.layers[0] if state.context is None else (*state.layers[0], state.context)
        x = x.masked_fill(~mask[..., None], 0)
        (states, contexts, weights), last = _read_columns(run_lowest, x, mask, first)
        context, last = (last[-1], last[:-1]) if self.input_feeding else (None, last)
        weights = weights.transpose(1, 2)  # [B, heads, T, Tk]
        if attentions is not None:
            contexts = _record_weights(attentions, weights, contexts, state)
        all_states, all_last = [record(states)], [last]
        for layer, first in zip(above, state.layers[1:], strict=True):

            def run(column, first, layer=layer):
                states, last = layer(_to_steps(column, None).contiguous(), segments, *first)
                return [_from_steps(states, None, column.shape)], last

            read = torch.cat([self.dropout(all_states[-1]), contexts], dim=-1)
            (states,), last = _read_columns(run, read, mask, first)
            all_states.append(record(states))
            all_last.append(last)
        after = DecodingState(tuple(all_last), context, state.memory, state.seen_tokens + x.shape[1])
        return DecoderOutput(tuple(all_states), contexts, weights, after)


def _read_columns(
    run: Callable[..., tuple[list, tuple[torch.Tensor, ...]]],
    x: torch.Tensor,
    mask: torch.Tensor,
    first: tuple[torch.Tensor, ...],
) -> tuple[list[torch.Tensor], tuple[torch.Tensor, ...]]:
    """Run a layer over one column of `x` `[B, T, W]` after the other; the state of a row passes over its pads.

    Args:
        run: Gives for a column `[B, 1, W]` and a state what the layer makes of it, each `[B, 1, ...]`, and the next state.
        x: `[B, T, W]`.
        mask: `[B, T]`, bool, True = real.
        first: The state before the first column, each `[B, ...]`.

    Returns:
        What the layer makes of all columns, each `[B, T, ...]`, 0 at pads; the last state.
    """
    outputs, state = [], first
    for column, real in zip(x.split(1, dim=1), mask.unbind(dim=1), strict=True):
        found, new = run(column, state)
        state = tuple(torch.where(real[:, None], mine, before) for mine, before in zip(new, state, strict=True))
        outputs.append(found)
    whole = [torch.cat(columns, dim=1) for columns in zip(*outputs, strict=True)]
    return [y.masked_fill(~mask.view(*mask.shape, *[1] * (y.dim() - 2)), 0) for y in whole], state


def _record_weights(
    attentions: TensorRecorder, weights: torch.Tensor, contexts: torch.Tensor, state: DecodingState
) -> torch.Tensor:
    """Record the weights `[B, heads, T, Tk]` of a target; returns the contexts `[B, T, M]`, computed from them."""
    weights = attentions.record(weights, 2)
    if not weights.requires_grad:
        return contexts
    values = state.memory.padded_values().repeat_interleave(state.rows_per_source, dim=0)
    return compute_from(contexts, weighted_sum(state.memory.columns.narrow(weights, 3), values))


def _unchanged(x: torch.Tensor) -> torch.Tensor:
    return x


def _to_steps(x: torch.Tensor, cells: CellLayout | None) -> torch.Tensor:
    """Bring tokens `[B, T, W]` into the order of time: cells `[N, W]`."""
    return x.transpose(0, 1).flatten(0, 1) if cells is None else to_cells(x, cells)[0, :-1]


def _from_steps(y: torch.Tensor, cells: CellLayout | None, shape: torch.Size) -> torch.Tensor:
    """Bring cells `[N, ...]` back to their tokens, `[B, T, ...]`; 0 at pads."""
    if cells is None:
        return y.view(shape[1], shape[0], *y.shape[1:]).transpose(0, 1)
    flat = y.flatten(1)
    return from_cells(torch.cat([flat, flat.new_zeros(1, flat.shape[1])])[None], cells).unflatten(-1, y.shape[1:])
