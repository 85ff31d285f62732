"""Additive attention as a module that owns its weights, and the pooling of a sequence by it."""

import torch
from torch import nn

from .chunked_attention import chunked_attention
from .eager_attention import eager_attention
from .ragged_attention import ragged_attention
from .real_tokens import over_real_tokens

IMPLEMENTATIONS = {"eager": eager_attention, "ragged": ragged_attention, "chunked": chunked_attention}


class AdditiveAttention(nn.Module):
    """Masked additive attention, score(q, h) = v . tanh(W q + U h), of any number of heads.

    Args:
        query_size: Width of a query.
        memory_size: Width H of the memory; each head weighs its own slice of it.
        attention_size: Width A of the space in which queries and memory are compared, all heads together.
        num_heads: Number of heads; divides A and H.
        dropout: Chance of each score to be dropped before the softmax in training.
        implementation: "eager" (method 1: pads removed before the softmax), "ragged" (method 2: pads never enter the
            graph) or "chunked" (method 1 in tiles, for many queries). The same numbers up to the order of summation.

    Raises:
        ValueError: If a size cannot be divided by `num_heads`, `dropout` is no chance, or `implementation` is unknown.

    Source:
        Bahdanau et al. 2015 (arXiv:1409.0473), appendix A.1.2.
    """

    def __init__(
        self,
        *,
        query_size: int,
        memory_size: int,
        attention_size: int,
        num_heads: int = 1,
        dropout: float = 0.0,
        implementation: str = "eager",
    ):
        super().__init__()
        if num_heads < 1:
            raise ValueError(f"num_attention_heads={num_heads} must be at least 1.")
        if not 0 <= dropout <= 1:
            raise ValueError(f"attention_dropout_prob={dropout} is no chance: it lies between 0 and 1.")
        for name, size in (("attention_size", attention_size), ("hidden_size", memory_size)):
            if size < 1:
                raise ValueError(f"{name}={size} must be at least 1.")
            if size % num_heads:
                raise ValueError(f"{name}={size} cannot be divided by num_attention_heads={num_heads}.")
        if implementation not in IMPLEMENTATIONS:
            raise ValueError(f"attention_implementation={implementation!r} is unknown; choose from {[*IMPLEMENTATIONS]}.")
        self.implementation = implementation
        self.dropout = dropout
        self.query_projection = nn.Linear(query_size, attention_size, bias=False)  # W
        self.key_projection = nn.Linear(memory_size, attention_size, bias=False)  # U
        self.energy = nn.Parameter(torch.empty(num_heads, attention_size // num_heads))  # v

    def forward(
        self,
        query: torch.Tensor,
        memory: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor,
        zero_at_pads: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend from each query over the real tokens of its row.

        Args:
            query: `[B, Tq, query_size]`.
            memory: `[B, Tk, H]`, what stands at pads is not read; or what `prepare` made of it.
            mask: `[B, Tk]`, bool, True = real.
            zero_at_pads: Whether the memory is known to be 0 at pads, which saves a pass over it.

        Returns:
            Context `[B, Tq, H]` and weights `[B, heads, Tq, Tk]`, exactly 0 at pads; both 0 for a row without a real token.
        """
        keys, values = memory if isinstance(memory, tuple) else self.prepare(memory, mask, zero_at_pads)
        return self.attend(query, keys, values, mask)

    def prepare(
        self, memory: torch.Tensor, mask: torch.Tensor, zero_at_pads: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Project a memory `[B, Tk, H]` once for any number of calls of `attend`.

        Args:
            memory: `[B, Tk, H]`.
            mask: `[B, Tk]`, bool, True = real.
            zero_at_pads: Whether the memory is known to be 0 at pads, which saves a pass over it.

        Returns:
            Keys and values in the form of the implementation: `[B, Tk, A]` and `[B, Tk, H]`, or the flat list of the real
            tokens, `[N, A]` and `[N, H]`.
        """
        if self.implementation == "ragged":
            values = memory[mask]
            return self.key_projection(values), values
        values = memory if zero_at_pads else memory.masked_fill(~mask[..., None], 0)
        return over_real_tokens(self.key_projection, values, mask, self.key_projection.out_features), values

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend over a prepared memory of B rows; returns as `forward` does.

        Args:
            query: `[B, Tq, query_size]`, or `[n * B, Tq, query_size]`, where n rows, one after the other, ask the same memory.
            keys: As `prepare` made them.
            values: As `prepare` made them.
            mask: `[B, Tk]`, bool, True = real.
        """
        attention = IMPLEMENTATIONS[self.implementation]
        dropout = self.dropout if self.training else 0.0
        (rows, queries), sources = query.shape[:2], mask.shape[0]
        if rows > sources:
            query = query.reshape(sources, -1, query.shape[2])
        context, weights = attention(self.query_projection(query), keys, values, self.energy, mask, dropout)
        if rows > sources:
            context = context.reshape(rows, queries, -1)
            weights = weights.unflatten(2, (-1, queries)).transpose(1, 2).flatten(0, 1)
        return context, weights


class AttentionPooling(nn.Module):
    """One vector for a sequence: additive attention from one query.

    Args:
        query: "learned" (one trained vector for all sequences), "last" (the final state of the recurrence) or "mean" (the
            mean of the real tokens).
        memory_size: Width H of the memory and of the query.
        attention_size: As in `AdditiveAttention`, as are `num_heads`, `dropout` and `implementation`.

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
        if query not in ("learned", "last", "mean"):
            raise ValueError(f"attention_query={query!r} is unknown; choose from ['learned', 'last', 'mean'].")
        self.query_form = query
        self.query = nn.Parameter(torch.empty(memory_size)) if query == "learned" else None
        self.attention = AdditiveAttention(
            query_size=memory_size,
            memory_size=memory_size,
            attention_size=attention_size,
            num_heads=num_heads,
            dropout=dropout,
            implementation=implementation,
        )

    def forward(
        self, memory: torch.Tensor, mask: torch.Tensor, last_state: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pool a memory.

        Args:
            memory: `[B, T, H]`, zero at pads.
            mask: `[B, T]`, bool, True = real.
            last_state: `[B, H]`, the final state of the recurrence; read by the query "last".

        Returns:
            Context `[B, H]` and weights `[B, heads, 1, T]`.
        """
        query = last_state
        if self.query is not None:
            query = self.query.expand(memory.shape[0], -1)
        elif self.query_form == "mean":
            query = memory.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        if query is None:
            raise ValueError('attention_query="last" needs `last_state`, the final state of the recurrence.')
        context, weights = self.attention(query[:, None], memory, mask, zero_at_pads=True)
        return context[:, 0], weights
