"""The lattice of a linear chain: one column of labels for each token, whose paths are all sequences of labels.

Its rows are packed: sorted by length, without padding, one time step after the other.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from .losses import IGNORED
from .masking import is_host_readable
from .packing import PackedLayout, build_packed_layout, pack_tokens, split_time_exactly


class Lattice(NamedTuple):
    """The tokens of a batch in the packed layout.

    Attributes:
        layout: The packed layout: N positions, for the first token of each row, then the second ones, and so on.
        slices: The positions of each step, which are those of the first rows of the sorted batch.
        has_token: `[B, 1]`, bool, whether each of the sorted rows has a token.
        shape: `(B, T)`. A batch without rows or columns gets one of padding in the layout.
    """

    layout: PackedLayout
    slices: list[slice]
    has_token: torch.Tensor
    shape: torch.Size

    @classmethod
    def of(cls, mask: torch.Tensor) -> "Lattice":
        """Build the steps of a mask `[B, T]`. Where the host cannot read it, all rows have T steps, some of them empty."""
        shape = mask.shape
        mask = _add_padding(mask)
        lengths = mask.sum(dim=1)
        if is_host_readable(mask):
            longest_first = sorted(lengths.tolist(), reverse=True)
            num_tokens = sum(longest_first)
            longest_first[0] = max(1, longest_first[0])
            layout = build_packed_layout(mask, lengths, 1, split_time_exactly(longest_first), num_tokens)
        else:
            layout = build_packed_layout(mask, lengths, 1)
        slices, position = [], 0
        for chunk in layout.time_chunks:
            for _ in range(chunk.steps):
                slices.append(slice(position, position + chunk.rows))
                position += chunk.rows
        if layout.sorted_indices is not None:
            lengths = lengths[layout.sorted_indices]
        return cls(layout, slices, (lengths > 0)[:, None], shape)

    def pack(self, x: torch.Tensor) -> torch.Tensor:
        """Bring tokens into the layout: `[B, T, K]` -> `[N, K]`, 0 at empty positions."""
        return pack_tokens(_add_padding(x), self.layout)[0, :-1]

    def pack_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Bring labels into the layout: `[B, T]` -> `[N]`, -100 at empty positions."""
        packed = _add_padding(labels).reshape(-1)[self.layout.token_indices[0]]
        is_empty = self.layout.is_empty
        return (packed if is_empty is None else packed.masked_fill(is_empty[:, 0], IGNORED))[:-1]

    def unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """Bring values back to their tokens, without gradient: `[N, K]` -> `[B, T, K]`, 0 at padding."""
        padded = torch.cat([packed, packed.new_zeros(1, packed.shape[1])])
        values = padded.index_select(0, self.layout.packed_indices[:, 0]).view(*self.layout.mask_shape, -1)
        return values[: self.shape[0], : self.shape[1]]

    def unsort(self, values: torch.Tensor) -> torch.Tensor:
        """Bring values of the sorted rows, `[B, ...]`, into the order of the batch."""
        order = self.layout.sorted_indices
        return (values if order is None else values[order.argsort()])[: self.shape[0]]

    def keep_where_empty(self, tokens: slice, kept: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Select `kept` at the empty positions of a step, and `values` elsewhere: `[rows, ..., K]`."""
        if self.layout.is_empty is None:
            return values
        is_empty = self.layout.is_empty[tokens]  # [rows, 1]
        return torch.where(is_empty.view(-1, *[1] * (values.dim() - 1)), kept, values)


def neighbors(slices: list[slice]) -> Iterator[tuple[slice, slice]]:
    """Yield the positions of each step but the first one, and of the tokens before them in the same rows."""
    for before, tokens in pairwise(slices):
        yield tokens, slice(before.start, before.start + tokens.stop - tokens.start)


def _add_padding(x: torch.Tensor) -> torch.Tensor:
    """Add a row to a batch without rows, and a column to one without columns: `[B, T, ...]`."""
    rows, columns = int(x.shape[0] == 0), int(x.shape[1] == 0)
    return nn.functional.pad(x, (*[0, 0] * (x.dim() - 2), 0, columns, 0, rows)) if rows or columns else x


def sum_product(
    packed: torch.Tensor, transitions: torch.Tensor, start: torch.Tensor, end: torch.Tensor, lattice: Lattice
) -> torch.Tensor:
    """Compute the logarithm of the sum of exp(score) over all paths of each sorted row, `[B, S]`; see `sum_forward`."""
    return _LogPartition.apply(packed, transitions, start, end, lattice)


class _LogPartition(torch.autograd.Function):
    """The gradient of the logarithm by a score is the expected number of uses of that score."""

    @staticmethod
    def forward(ctx, packed, transitions, start, end, lattice):
        log_sums, saved = sum_forward(packed, transitions, start, end, lattice)
        ctx.save_for_backward(*saved)
        ctx.lattice = lattice
        return log_sums

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_log_sums):
        return *sum_backward(grad_log_sums, ctx.saved_tensors, ctx.lattice), None


def sum_forward(
    packed: torch.Tensor, transitions: torch.Tensor, start: torch.Tensor, end: torch.Tensor, lattice: Lattice
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Run the forward algorithm.

    Args:
        packed: `[N, S, K]`, emissions in the packed layout; S kinds of them have the same transitions.
        transitions: `[K, K]`.
        start: `[K]`.
        end: `[K]`.
        lattice: The lattice of the batch.

    Returns:
        The logarithm of the sum for each sorted row and kind, `[B, S]`, and what the backward algorithm needs.

    Source:
        Rabiner 1989, sections III.A and V.A (scaling).
    """
    lowest = torch.finfo(packed.dtype).min
    largest = transitions.amax().clamp(min=lowest)
    factors = (transitions - largest).exp()  # [K, K]
    shares = torch.zeros_like(packed)  # of the labels of the previous token, relative to the largest
    totals = torch.ones_like(packed)  # shares @ factors
    # Logarithm of the sum over all beginnings with each last label.
    state = start.repeat(len(lattice.has_token), packed.shape[1], 1)  # [B, S, K]
    for step, tokens in enumerate(lattice.slices):
        current = state[: tokens.stop - tokens.start]
        score = start + packed[tokens]
        if step:
            top = current.amax(-1, keepdim=True).clamp(min=lowest)
            shares[tokens] = (current - top).exp()
            totals[tokens] = shares[tokens] @ factors
            score = totals[tokens].log() + (top + largest) + packed[tokens]
        state[: len(current)] = lattice.keep_where_empty(tokens, current, score)
    log_sums = torch.logsumexp(state + end, -1).masked_fill(~lattice.has_token, 0)  # [B, S]
    last = (state + end - log_sums.clamp(min=lowest)[..., None]).exp()  # [B, S, K], probability of each last label
    return log_sums, (shares, totals, factors, last * lattice.has_token[..., None])


def sum_backward(
    grad_log_sums: torch.Tensor, saved: tuple[torch.Tensor, ...], lattice: Lattice
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute the expected number of uses of each score from the last token to the first, each row weighted by its gradient.

    With A the shares and E the factors, the probability of label i of one token and j of the next one is
    `A_i E_ij probability_j / (A E)_j`.

    Args:
        grad_log_sums: `[B, S]`.
        saved: From `sum_forward`.
        lattice: The lattice of the batch.

    Returns:
        The gradients of emissions `[N, S, K]`, transitions `[K, K]`, start `[K]` and end `[K]`.
    """
    shares, totals, factors, last = saved
    grad_packed, ratios = torch.zeros_like(shares), torch.zeros_like(shares)
    state = last * grad_log_sums[..., None]  # [B, S, K], weighted probability of each label
    grad_end = state.sum((0, 1))
    zero = state.new_zeros(1)
    for step, tokens in reversed([*enumerate(lattice.slices)]):
        current = state[: tokens.stop - tokens.start]
        grad_packed[tokens] = lattice.keep_where_empty(tokens, zero, current)
        if step:
            ratio = grad_packed[tokens] / totals[tokens].clamp(min=torch.finfo(totals.dtype).tiny)
            ratios[tokens] = ratio
            state[: len(current)] = lattice.keep_where_empty(tokens, current, shares[tokens] * (ratio @ factors.T))
    grad_start = grad_packed[lattice.slices[0]].sum((0, 1))
    grad_transitions = factors * (shares.flatten(0, 1).T @ ratios.flatten(0, 1))
    return grad_packed, grad_transitions, grad_start, grad_end
