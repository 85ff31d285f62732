"""The layers of a decoder: one whose input is known for all steps, and one that asks for a part of it at every step."""

from collections.abc import Sequence

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import AdditiveAttention
from .attentive_gradient import attentive_recurrence_over_cells
from .attentive_recurrence import attentive_recurrence
from .attentive_step import attentive_step
from .recurrence import DirectionWeights
from .recurrent_kernel import run_from_state
from .segments import Segment


class PlainLayer(GradientCheckpointingLayer):
    """A layer whose input is known for all steps: torch's kernel runs the whole target."""

    def __init__(self, *, input_size: int, hidden_size: int, rnn_type: str):
        super().__init__()
        self.rnn_type = rnn_type
        self.rnn = DirectionWeights(rnn_type, input_size, hidden_size)

    def forward(
        self, x: torch.Tensor, segments: Sequence[Segment], *first: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Run the layer: cells `[N, input_size]` -> states `[N, H]` and the last state, as `run_from_state`."""
        return run_from_state(self.rnn_type, x, self.rnn(x), segments, first)


class AttentiveLayer(GradientCheckpointingLayer):
    """A layer whose input at each step holds a context that its own state asked for: it goes step by step."""

    def __init__(self, *, input_size: int, hidden_size: int, memory_size: int, rnn_type: str, feeds_input: bool):
        super().__init__()
        self.rnn_type = rnn_type
        self.feeds_input = feeds_input
        self.rnn = DirectionWeights(rnn_type, input_size + memory_size, hidden_size)

    def is_fused(self, attention: AdditiveAttention) -> bool:
        """Tell whether recurrence and attention run as one function, in which rows may end at any step.

        It is the form of "chunked" that goes step by step; weights that are elsewhere need the calls of their modules.
        """
        return not (
            attention.implementation != "chunked"
            or self.feeds_input
            or attention.energy.is_meta
            or torch.compiler.is_compiling()
        )

    def forward(
        self,
        x: torch.Tensor,
        segments: Sequence[Segment],
        attention: AdditiveAttention,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor,
        fed: torch.Tensor | None,
        *first: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
        """Run the layer over cells `[N, input_size]`; the rest is as in `attentive_recurrence`.

        Returns:
            States `[N, H]`, contexts `[N, M]`, weights `[N, heads, Tk]` and the last state.
        """
        if self.is_fused(attention):
            vectors, memory = (attention.query_projection.weight, attention.energy), (keys, values, mask)
            dropout = attention.dropout if attention.training else 0.0
            one_step = [*segments] == [(1, first[0].shape[0])]
            if one_step and not dropout and not torch.is_grad_enabled():
                return attentive_step(self.rnn_type, x, self.rnn(x), vectors, memory, first)
            return attentive_recurrence_over_cells(self.rnn_type, x, self.rnn(x), vectors, memory, segments, first, dropout)

        def attend(query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            context, weights = attention(query[:, None], (keys, values), mask)
            return context[:, 0], weights[:, :, 0]

        steps = x.unflatten(0, segments[0])
        *outputs, last = attentive_recurrence(self.rnn_type, steps, self.rnn(x), attend, first, fed)
        states, contexts, weights = (output.flatten(0, 1) for output in outputs)
        return states, contexts, weights, last
