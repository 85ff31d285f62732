"""The output layer of a decoder before the vocabulary, for all steps at once."""

import torch
from torch import nn

from .real_tokens import over_real_tokens

FORMS = ("maxout", "linear")


class DeepOutput(nn.Module):
    """What a word is chosen by: its state, the word before it and its context, in one projection.

    With t' = U s + V y + C c + b, "maxout" takes the larger one of each pair of numbers of t', "linear" takes t' as it is.

    Args:
        state_size: Width of the states s.
        embedding_size: Width of the embedded words y.
        context_size: Width of the contexts c.
        output_size: Width of the result.
        form: "maxout" or "linear".
        dropout: Dropout of states and contexts.

    Raises:
        ValueError: If `form` is unknown.

    Source:
        Bahdanau et al. 2015 (arXiv:1409.0473), equation 4 and appendix A.2.2. The two differ in which state they read; this
        is equation 4, the state s_i that has read y_(i-1) and c_i. A pair is a number of the first half of t' and its like in
        the second, where the paper pairs neighbors: the same but for the order of the weights.
    """

    def __init__(
        self, *, state_size: int, embedding_size: int, context_size: int, output_size: int, form: str, dropout: float = 0.0
    ):
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"output_layer={form!r} is unknown; choose from {[*FORMS]}.")
        self.form = form
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(
            state_size + embedding_size + context_size, output_size * (2 if form == "maxout" else 1)
        )  # U, V, C

    def forward(
        self, states: torch.Tensor, words: torch.Tensor, contexts: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Compute the result for all steps.

        Args:
            states: `[B, T, state_size]`, finite at pads.
            words: `[B, T, embedding_size]`, finite at pads.
            contexts: `[B, T, context_size]`, finite at pads.
            mask: `[B, T]`, bool, True = real; None means that all are.

        Returns:
            `[B, T, output_size]`, at pads 0 or finite.
        """
        if self.dropout.training:  # else two calls less for each word of generate()
            states, contexts = self.dropout(states), self.dropout(contexts)
        read = torch.cat([states, words, contexts], dim=-1)
        return over_real_tokens(self._choose, read, mask, read.shape[-1])

    def _choose(self, read: torch.Tensor) -> torch.Tensor:
        projected = self.projection(read)
        return torch.maximum(*projected.chunk(2, dim=-1)) if self.form == "maxout" else projected
