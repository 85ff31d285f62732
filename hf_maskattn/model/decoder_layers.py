"""The layers of a decoder: one whose input is known for all steps, and one that asks for a part of it at every step."""

from collections.abc import Sequence

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import AdditiveAttention
from .attentive_recurrence import attentive_recurrence
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

    def __init__(self, *, input_size: int, hidden_size: int, memory_size: int, rnn_type: str):
        super().__init__()
        self.rnn_type = rnn_type
        self.rnn = DirectionWeights(rnn_type, input_size + memory_size, hidden_size)

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
        """Run the layer over cells `[N, input_size]` of a single segment; the rest is as in `attentive_recurrence`.

        Returns:
            States `[N, H]`, contexts `[N, M]`, weights `[N, heads, Tk]` and the last state.
        """

        def attend(query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            context, weights = attention(query[:, None], (keys, values), mask)
            return context[:, 0], weights[:, :, 0]

        steps = x.unflatten(0, segments[0])
        *outputs, last = attentive_recurrence(self.rnn_type, steps, self.rnn(x), attend, first, fed)
        states, contexts, weights = (output.flatten(0, 1) for output in outputs)
        return states, contexts, weights, last
