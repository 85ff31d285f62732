"""The layers of a decoder: plain recurrent, recurrent with attention at every step, and the output layer."""

from collections.abc import Sequence

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import AdditiveAttention
from .attentive_recurrence import attentive_recurrence, packed_attentive_recurrence
from .masking import apply_to_tokens
from .packing import TimeChunk
from .recurrence import DirectionWeights
from .recurrent_kernel import run_packed_layer

OUTPUT_LAYERS = ("maxout", "linear")


class PlainLayer(GradientCheckpointingLayer):
    """A layer whose input is known for all steps: torch's kernel runs the whole target."""

    def __init__(self, *, input_size: int, hidden_size: int, rnn_type: str):
        super().__init__()
        self.rnn_type = rnn_type
        self.rnn = DirectionWeights(rnn_type, input_size, hidden_size)

    def forward(
        self, x: torch.Tensor, time_chunks: Sequence[TimeChunk], *initial_state: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Run the layer: packed `[N, input_size]` -> states `[N, H]` and the final state, as `run_packed_layer`."""
        return run_packed_layer(self.rnn_type, x, self.rnn(x), time_chunks, initial_state)


class AttentiveLayer(GradientCheckpointingLayer):
    """A layer whose input at each step holds a context for which its own state is the query: it runs step by step."""

    def __init__(self, *, input_size: int, hidden_size: int, memory_size: int, rnn_type: str, input_feeding: bool):
        super().__init__()
        self.rnn_type = rnn_type
        self.input_feeding = input_feeding
        self.rnn = DirectionWeights(rnn_type, input_size + memory_size, hidden_size)

    def is_fused(self, attention: AdditiveAttention) -> bool:
        """Whether recurrence and attention run as one function, in which rows may end at any step.

        It is the step-by-step form of "chunked". Offloaded weights need the calls of their modules.
        """
        return (
            attention.implementation == "chunked"
            and not self.input_feeding
            and not attention.energy.is_meta
            and not torch.compiler.is_compiling()
        )

    def forward(
        self,
        x: torch.Tensor,
        time_chunks: Sequence[TimeChunk],
        attention: AdditiveAttention,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor,
        initial_context: torch.Tensor | None,
        *initial_state: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
        """Run the layer over packed `[N, input_size]`; otherwise as `attentive_recurrence`.

        Returns:
            States `[N, H]`, contexts `[N, M]`, weights `[N, heads, Tk]` and the final state.
        """
        dropout = attention.dropout if attention.training else 0.0
        is_one_step = list(time_chunks) == [(1, initial_state[0].shape[0])]
        is_decoding = is_one_step and not dropout and not torch.is_grad_enabled()
        if self.is_fused(attention) and not is_decoding:
            return packed_attentive_recurrence(
                x,
                self.rnn(x),
                (attention.query_projection.weight, attention.energy),
                (keys, values, mask),
                time_chunks,
                initial_state,
                dropout,
            )

        def attend(query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            context, weights = attention(query[:, None], (keys, values), mask)
            return context[:, 0], weights[:, :, 0]

        steps = x.unflatten(0, time_chunks[0])
        return attentive_recurrence(self.rnn_type, steps, self.rnn(x), attend, initial_state, initial_context)


class DeepOutput(nn.Module):
    """The output layer before the vocabulary: state, previous token and context in one projection, for all steps at once.

    With t' = U s + V y + C c + b, "maxout" takes the maximum of each pair of numbers of t', "linear" takes t' itself.

    Args:
        state_size: Width of the states s.
        embedding_size: Width of the embedded tokens y.
        context_size: Width of the contexts c.
        output_size: Width of the result.
        form: "maxout" or "linear".
        dropout: Dropout of states and contexts.

    Raises:
        ValueError: If `form` is unknown.

    Source:
        Bahdanau et al. 2015 (arXiv:1409.0473), equation 4 and appendix A.2.2. The two differ in the state that is read; this
        is equation 4, the state s_i that has read y_(i-1) and c_i. A pair is a number of the first half of t' and its
        counterpart in the second, where the paper pairs neighbors: the same up to the order of the weights.
    """

    def __init__(
        self, *, state_size: int, embedding_size: int, context_size: int, output_size: int, form: str, dropout: float = 0.0
    ):
        super().__init__()
        if form not in OUTPUT_LAYERS:
            raise ValueError(f"output_layer must be one of {[*OUTPUT_LAYERS]}, got {form!r}.")
        self.form = form
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(
            state_size + embedding_size + context_size, output_size * (2 if form == "maxout" else 1)
        )  # U, V, C

    def forward(
        self, states: torch.Tensor, embedded: torch.Tensor, contexts: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Compute the result for all steps.

        Args:
            states: `[B, T, state_size]`, finite at padding.
            embedded: `[B, T, embedding_size]`, finite at padding.
            contexts: `[B, T, context_size]`, finite at padding.
            mask: `[B, T]`, bool, True = token; None means that there is no padding.

        Returns:
            `[B, T, output_size]`, 0 or finite at padding.
        """
        if self.dropout.training:  # otherwise two calls less for each token of generate()
            states, contexts = self.dropout(states), self.dropout(contexts)
        x = torch.cat([states, embedded, contexts], dim=-1)
        return apply_to_tokens(self._project, x, mask, x.shape[-1])

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        projected = self.projection(x)
        return torch.maximum(*projected.chunk(2, dim=-1)) if self.form == "maxout" else projected
