"""Additive attention as a module with its weights, and the pooling of a sequence with it."""

import torch
from torch import nn

from .attention_functions import chunked_attention, eager_attention, ragged_attention, tanh_of_sum, weighted_sum
from .masking import apply_to_tokens

IMPLEMENTATIONS = {"eager": eager_attention, "ragged": ragged_attention, "chunked": chunked_attention}
QUERIES = ("bias", "learned", "last", "mean")


class AdditiveAttention(nn.Module):
    """Masked additive attention, score(q, h) = v . tanh(W q + U h), with any number of heads.

    Without queries it is score(h) = v . tanh(U h + b), with a trained bias b in place of a projected query.

    Args:
        query_size: Width of a query; None for attention without queries.
        memory_size: Width H of the memory; each head weighs its own slice of it.
        attention_size: Width A of the space in which queries and memory are compared, all heads together.
        num_heads: Number of heads; divides A and H.
        dropout: Probability of each score to be dropped before the softmax in training.
        implementation: "eager" (method 1: scores of padding filled before the softmax), "ragged" (method 2: padding never
            enters the graph) or "chunked" (method 1 in tiles, for many queries). The same numbers up to the order of summation.

    Raises:
        ValueError: If a size cannot be divided by `num_heads`, `dropout` is no probability, or `implementation` is unknown.

    Source:
        Bahdanau et al. 2015 (arXiv:1409.0473), appendix A.1.2. Without queries: Yang et al. 2016, "Hierarchical Attention
        Networks for Document Classification", equations 5 to 7.
    """

    def __init__(
        self,
        *,
        query_size: int | None,
        memory_size: int,
        attention_size: int,
        num_heads: int = 1,
        dropout: float = 0.0,
        implementation: str = "eager",
    ):
        super().__init__()
        if num_heads < 1:
            raise ValueError(f"num_attention_heads must be at least 1, got {num_heads}.")
        if not 0 <= dropout <= 1:
            raise ValueError(f"attention_dropout_prob must be in [0, 1], got {dropout}.")
        for name, size in (("attention_size", attention_size), ("hidden_size", memory_size)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}.")
            if size % num_heads:
                raise ValueError(f"{name} must be divisible by num_attention_heads={num_heads}, got {size}.")
        if implementation not in IMPLEMENTATIONS:
            raise ValueError(f"attention_implementation must be one of {[*IMPLEMENTATIONS]}, got {implementation!r}.")
        self.implementation = implementation
        self.dropout = dropout
        if query_size is None:
            self.bias = nn.Parameter(torch.empty(attention_size))  # b
            self.register_module("query_projection", None)
        else:
            self.query_projection = nn.Linear(query_size, attention_size, bias=False)  # W
            self.register_parameter("bias", None)
        self.key_projection = nn.Linear(memory_size, attention_size, bias=False)  # U
        self.energy = nn.Parameter(torch.empty(num_heads, attention_size // num_heads))  # v

    def extra_repr(self) -> str:
        """Return the options that `print` shows."""
        return f"num_heads={len(self.energy)}, dropout={self.dropout}, implementation={self.implementation!r}"

    def forward(
        self,
        query: torch.Tensor | None,
        memory: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor,
        is_zero_at_padding: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend from each query over the tokens of its row.

        Args:
            query: `[B, Tq, query_size]`; None for attention without queries, where Tq is 1.
            memory: `[B, Tk, H]`, not read at padding; or the keys and values of `prepare`.
            mask: `[B, Tk]`, bool, True = token.
            is_zero_at_padding: Whether the memory is known to be 0 at padding, which saves a pass over it.

        Returns:
            Context `[B, Tq, H]` and weights `[B, heads, Tq, Tk]`, exactly 0 at padding; both 0 for a row without a token.
        """
        keys, values = memory if isinstance(memory, tuple) else self.prepare(memory, mask, is_zero_at_padding)
        return self.attend(query, keys, values, mask)

    def prepare(
        self, memory: torch.Tensor, mask: torch.Tensor, is_zero_at_padding: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Project a memory once for any number of calls of `attend`.

        Args:
            memory: `[B, Tk, H]`.
            mask: `[B, Tk]`, bool, True = token.
            is_zero_at_padding: Whether the memory is known to be 0 at padding, which saves a pass over it.

        Returns:
            Keys and values in the form of the implementation: `[B, Tk, A]` and `[B, Tk, H]`, or for "ragged" the flat list of
            the tokens, `[N, A]` and `[N, H]`.
        """
        if self.implementation == "ragged":
            values = memory[mask]
            return self.key_projection(values), values
        values = memory if is_zero_at_padding else memory.masked_fill(~mask[..., None], 0)
        return apply_to_tokens(self.key_projection, values, mask, self.key_projection.out_features), values

    def attend(
        self, query: torch.Tensor | None, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend over a prepared memory of B rows; returns as `forward` does.

        Args:
            query: `[B, Tq, query_size]`, or `[n * B, Tq, query_size]`, where n consecutive rows share a row of the memory; None
                for attention without queries.
            keys: As returned by `prepare`.
            values: As returned by `prepare`.
            mask: `[B, Tk]`, bool, True = token.
        """
        attention_function = IMPLEMENTATIONS[self.implementation]
        dropout = self.dropout if self.training else 0.0
        sources = mask.shape[0]
        if query is None:
            bias = self.bias.to(keys.dtype).expand(sources, 1, -1)  # [B, 1, A]; under autocast keys are narrower
            return attention_function(bias, keys, values, self.energy, mask, dropout)
        rows, num_queries, query_size = query.shape
        if rows > sources:
            query = query.reshape(sources, -1, query_size)
        context, weights = attention_function(self.query_projection(query), keys, values, self.energy, mask, dropout)
        if rows > sources:
            context = context.reshape(rows, num_queries, -1)
            weights = weights.unflatten(2, (-1, num_queries)).transpose(1, 2).flatten(0, 1)
        return context, weights

    def activations(self, query: torch.Tensor | None, memory: torch.Tensor) -> torch.Tensor:
        """Compute tanh(W q + U h) of each query and position, whose derivative shows whether the scores are saturated.

        Args:
            query: `[B, Tq, query_size]`; None for attention without queries, where Tq is 1.
            memory: `[B, Tk, H]`, finite at padding.

        Returns:
            `[B, Tq, Tk, A]`, of no meaning at padding.
        """
        queries = self.bias if query is None else self.query_projection(query)[:, :, None]
        return tanh_of_sum(queries, self.key_projection(memory)[:, None])


class AttentionPooling(nn.Module):
    """One vector for a sequence: additive attention from one query, or without queries.

    Args:
        query: "bias" (no query but a trained bias of the projected memory), "learned" (one trained vector for all sequences),
            "last" (the final state of the recurrence) or "mean" (the mean of the tokens).
        memory_size: Width H of the memory and of the query.
        attention_size: Width A of the projected query and keys, and of the bias.
        num_heads: Number of heads; divides A and H.
        dropout: Probability of each score to be dropped before the softmax in training.
        implementation: "eager", "ragged" or "chunked"; see `AdditiveAttention`.

    Raises:
        ValueError: If `query` is unknown.
    """

    def __init__(
        self,
        *,
        query: str,
        memory_size: int,
        attention_size: int,
        num_heads: int = 1,
        dropout: float = 0.0,
        implementation: str = "eager",
    ):
        super().__init__()
        if query not in QUERIES:
            raise ValueError(f"attention_query must be one of {[*QUERIES]}, got {query!r}.")
        self.query_form = query
        self.query = nn.Parameter(torch.empty(memory_size)) if query == "learned" else None
        self.attention = AdditiveAttention(
            query_size=None if query == "bias" else memory_size,
            memory_size=memory_size,
            attention_size=attention_size,
            num_heads=num_heads,
            dropout=dropout,
            implementation=implementation,
        )

    def extra_repr(self) -> str:
        """Return the options that `print` shows."""
        return f"query={self.query_form!r}"

    def forward(
        self,
        memory: torch.Tensor,
        mask: torch.Tensor,
        last_state: torch.Tensor | None = None,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pool a memory.

        Args:
            memory: `[B, T, H]`, 0 at padding.
            mask: `[B, T]`, bool, True = token.
            last_state: `[B, H]`, the final state of the recurrence; read by the query "last".
            output_attentions: Whether the context is computed from the returned weights, so that gradients reach them.

        Returns:
            Context `[B, H]` and weights `[B, heads, 1, T]`.
        """
        query = self._build_query(memory, mask, last_state)
        context, weights = self.attention(query, memory, mask, is_zero_at_padding=True)
        if output_attentions and self.attention.implementation == "ragged" and weights.requires_grad:
            # "ragged" reads the flat list of weights; those that it returns are a padded copy.
            context = weighted_sum(weights, memory).to(context.dtype)
        return context[:, 0], weights

    def activations(self, memory: torch.Tensor, mask: torch.Tensor, last_state: torch.Tensor | None = None) -> torch.Tensor:
        """Compute `AdditiveAttention.activations` of each sequence, `[B, 1, T, A]`; arguments as of `forward`."""
        return self.attention.activations(self._build_query(memory, mask, last_state), memory)

    def _build_query(self, memory: torch.Tensor, mask: torch.Tensor, last_state: torch.Tensor | None) -> torch.Tensor | None:
        """Build the query of each sequence, `[B, 1, H]`; None for "bias"."""
        if self.query_form == "bias":
            return None
        query = last_state
        if self.query is not None:
            query = self.query.expand(memory.shape[0], -1)
        elif self.query_form == "mean":
            # Filled again, so that a gradient of the sum does not reach padding.
            total = memory.masked_fill(~mask[..., None], 0).sum(dim=1)
            query = total / mask.sum(dim=1, keepdim=True).clamp(min=1)
        if query is None:
            raise ValueError('attention_query="last" needs `last_state`, the final state of the recurrence.')
        return query[:, None]
