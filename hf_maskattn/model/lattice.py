"""The lattice of a linear chain: one column of labels for each token, whose paths are all sequences of labels.

Its rows are packed: sorted by length, without padding, one time step after the other.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from math import isqrt
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

    def num_rows(self, step: int) -> int:
        """Return how many rows have a token at a step."""
        return self.slices[step].stop - self.slices[step].start

    def neighbors(self) -> Iterator[tuple[slice, slice]]:
        """Yield the positions of each step but the first one, and of the tokens before them in the same rows."""
        for before, tokens in pairwise(self.slices):
            yield tokens, slice(before.start, before.start + tokens.stop - tokens.start)

    def keep_where_empty(self, tokens: slice, kept: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Select `kept` at the empty positions of a step, and `values` elsewhere: `[rows, ..., K]`."""
        if self.layout.is_empty is None:
            return values
        is_empty = self.layout.is_empty[tokens]  # [rows, 1]
        return torch.where(is_empty.view(-1, *[1] * (values.dim() - 1)), kept, values)


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


_CACHED_SUMS = 2**18
"""Number of sums that stay in the cache of a CPU between addition and comparison: 1 MiB in float32."""


class _MaxPlus(NamedTuple):
    """The steps of the Viterbi algorithm, with half of the work where IOB2 forbids half of the transitions.

    I-X of IOB2 may only follow B-X and I-X, and only these are compared. All other labels may follow any label. The rows of the
    batch are the last dimension, along which a CPU compares several at once.

    Attributes:
        order: `[K]`, int64, the labels in the order of all other tensors: D labels that are no I-X, the last E of them the B-X
            that have an I-X, then these E I-X in the same order.
        scores: `[K, D, 1]`, of transitions to the first D labels.
        reversed_scores: `[D, K, 1]`, the same.
        inside_scores: `[2, E, 1]`, of transitions from B-X and from I-X to I-X.
        workspace: Memory of the sums of a step, which would take longer to allocate than to compute.
    """

    order: torch.Tensor
    scores: torch.Tensor
    reversed_scores: torch.Tensor
    inside_scores: torch.Tensor
    workspace: torch.Tensor

    @classmethod
    def of(cls, transitions: torch.Tensor, num_rows: int) -> "_MaxPlus":
        """Sort the labels of transitions `[K, K]` for B rows at most. Where the host cannot read them, D is K."""
        labels, num_pairs = list(range(len(transitions))), 0
        if is_host_readable(transitions):
            labels, num_pairs = _pair_labels(transitions.isneginf().numpy().tobytes())
        order = torch.tensor(labels, device=transitions.device)
        transitions = transitions.index_select(0, order).index_select(1, order)
        scores, to_insides = transitions.split([len(transitions) - num_pairs, num_pairs], dim=1)
        inside_scores = to_insides[len(labels) - 2 * num_pairs :].view(2, num_pairs, num_pairs).diagonal(dim1=1, dim2=2)
        return cls(
            order,
            scores.contiguous()[..., None],
            scores.T.contiguous()[..., None],
            inside_scores[..., None],
            transitions.new_empty(min(scores.numel() * num_rows, max(_CACHED_SUMS, len(transitions) * num_rows))),
        )

    def max_over_previous(self, x: torch.Tensor) -> torch.Tensor:
        """Compute `best_j = max_i (x_i + transitions_ij)`, `[K, rows]` -> `[K, rows]`."""
        best = self._max_over_rows(x, self.scores)
        if not self.inside_scores.shape[1]:
            return best
        return torch.cat([best, (self._begins_and_insides(x) + self.inside_scores).amax(0)])

    def max_over_next(self, x: torch.Tensor) -> torch.Tensor:
        """Compute `best_i = max_j (transitions_ij + x_j)`, `[K, rows]` -> `[K, rows]`."""
        num_first = len(self.reversed_scores)
        best = self._max_over_rows(x[:num_first], self.reversed_scores)
        if self.inside_scores.shape[1]:
            to_inside = self._begins_and_insides(best)
            torch.maximum(to_inside, x[num_first:] + self.inside_scores, out=to_inside)
        return best

    def _max_over_rows(self, x: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Compute `max_i (x_i + scores_ij)`: `[I, rows]`, `[I, J, 1]` -> `[J, rows]`."""
        num_sums = scores.numel() * x.shape[1]
        if num_sums > len(self.workspace):
            half = len(x) // 2
            return torch.maximum(self._max_over_rows(x[:half], scores[:half]), self._max_over_rows(x[half:], scores[half:]))
        sums = self.workspace[:num_sums].view(len(x), -1, x.shape[1])
        return torch.add(x[:, None], scores, out=sums).amax(0)

    def _begins_and_insides(self, x: torch.Tensor) -> torch.Tensor:
        """View the values of all B-X that have an I-X, and of these I-X: `[K, rows]` -> `[2, E, rows]`."""
        num_pairs = self.inside_scores.shape[1]
        return x[len(x) - 2 * num_pairs :].view(2, num_pairs, -1)


@lru_cache(maxsize=16)
def _pair_labels(is_forbidden: bytes) -> tuple[list[int], int]:
    """Sort labels as `_MaxPlus` does.

    Args:
        is_forbidden: Whether a transition from label i to label j is forbidden, at `i * K + j`.

    Returns:
        The labels, and the number of I-X that may only follow B-X and themselves: 0 if one B-X would be that of two or an I-X.
    """
    num_labels = isqrt(len(is_forbidden))
    labels = list(range(num_labels))
    pairs = {}
    for label in labels:
        sources = [source for source in labels if not is_forbidden[source * num_labels + label]]
        if len(sources) == 2 and label in sources:
            pairs[label] = sum(sources) - label
    paired = {*pairs, *pairs.values()}
    if len(paired) < 2 * len(pairs):
        return labels, 0
    return [*(label for label in labels if label not in paired), *pairs.values(), *pairs], len(pairs)


def max_product(
    packed: torch.Tensor, transitions: torch.Tensor, start: torch.Tensor, end: torch.Tensor, lattice: Lattice
) -> torch.Tensor:
    """Compute the largest score of a path through each label of each token, with the best path above all others.

    Args:
        packed: `[N, K]`, emissions in the packed layout.
        transitions: `[K, K]`.
        start: `[K]`.
        end: `[K]`.
        lattice: The lattice of the batch.

    Returns:
        `[N, K]`.
    """
    max_plus = _MaxPlus.of(transitions, len(lattice.has_token))
    sizes = [tokens.stop - tokens.start for tokens in lattice.slices]
    emissions = packed.T[max_plus.order]  # [K, N]
    steps = emissions.split(sizes, dim=1)  # [K, rows]
    ends = end[max_plus.order, None].expand(-1, len(lattice.has_token))  # [K, B]
    afters = [ends[:, : sizes[-1]]]  # [K, rows], best score of what follows each token, last step first
    for step in range(len(sizes) - 1, 0, -1):
        after = max_plus.max_over_next(steps[step] + afters[-1])
        if lattice.layout.is_empty is not None:
            after = torch.where(lattice.layout.is_empty[lattice.slices[step], 0], afters[-1], after)
        if sizes[step] < sizes[step - 1]:
            after = torch.cat([after, ends[:, sizes[step] : sizes[step - 1]]], dim=1)
        afters.append(after)
    befores = [start[max_plus.order, None].expand(-1, sizes[0])]  # [K, rows], best score of what precedes each token
    for step in range(1, len(sizes)):
        best = steps[step - 1] + befores[-1]
        befores.append(max_plus.max_over_previous(best[:, : sizes[step]]))
    before, after = torch.cat(befores, dim=1), torch.cat(afters[::-1], dim=1)  # [K, N]
    rank = max_plus.order.argsort()
    until = before + emissions  # [K, N], best score of what ends with each label of each token
    scores = (until + after).index_select(0, rank).T.contiguous()  # [N, K]
    guess = scores.max(-1).indices  # faster than argmax on a CPU
    if is_host_readable(guess) and _is_path(guess, rank, before, until, transitions, lattice):
        return scores
    return _raise_path(scores, _best_path(packed, after[rank].T, transitions, start, lattice))


def _is_path(
    guess: torch.Tensor,
    rank: torch.Tensor,
    before: torch.Tensor,
    until: torch.Tensor,
    transitions: torch.Tensor,
    lattice: Lattice,
) -> bool:
    """Return whether the best way to each label of a guess `[N]` comes from the label guessed for the previous token."""
    sizes = torch.tensor([tokens.stop - tokens.start for tokens in lattice.slices])
    num_first = lattice.num_rows(0)
    previous = torch.arange(num_first, len(guess)) - sizes[:-1].repeat_interleave(sizes[1:])
    before, until = (x.gather(0, rank[guess][None])[0] for x in (before, until))  # [N]
    way = until[previous] + transitions[guess[previous], guess[num_first:]]
    return torch.equal(way, before[num_first:])


def _best_path(
    packed: torch.Tensor, after: torch.Tensor, transitions: torch.Tensor, start: torch.Tensor, lattice: Lattice
) -> torch.Tensor:
    """Select `y_t = argmax_j (transitions[y_t-1, j] + packed[t, j] + after[t, j])`, the smallest label of several: `[N]`."""
    first = lattice.slices[0]
    path = torch.empty(len(packed), dtype=torch.long, device=packed.device)
    path[first] = (start + packed[first] + after[first]).argmax(-1)
    for tokens, previous in lattice.neighbors():
        path[tokens] = (transitions[path[previous]] + packed[tokens] + after[tokens]).argmax(-1)
    return path


def _raise_path(scores: torch.Tensor, path: torch.Tensor) -> torch.Tensor:
    """Raise the score of each label of a path above the others, if argmax would not select it: `[N, K]`."""
    best = scores.amax(-1)
    raised = best + best.abs().clamp(min=1) * torch.finfo(scores.dtype).eps
    path_scores = torch.where(scores.argmax(-1) == path, best, raised)
    return scores.scatter(1, path[:, None], path_scores[:, None])
