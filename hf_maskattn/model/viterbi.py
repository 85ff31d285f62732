"""The Viterbi algorithm from both ends of each row: the best path of a lattice through each label of each token.

On a CPU most of its small steps are calls of numpy on the memory of the tensors, which take a fraction of the time of torch's.
"""

from functools import lru_cache
from math import isqrt
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn

from .lattice import Lattice, neighbors
from .masking import is_host_readable

Array: TypeAlias = Any
"""An array of numpy, which a file that travels with the weights does not import."""

_CACHED_SUMS = 2**18
"""Number of sums that stay in the cache of a CPU between addition and comparison: 1 MiB in float32."""

_FEW_SUMS = 80_000
"""Number of sums that take less time than the calls that would leave out half of them."""

_VERY_FEW_SUMS = 20_000
"""Number of sums that take less time than the calls that would find candidates."""

_FEW_CANDIDATES = 3
"""Number of candidates of a row, in the mean, up to which they take less time than all labels."""

_MOST_CANDIDATES = 8
"""Number of candidates of the row with most of them up to which they take less time than all labels."""


def max_product(
    emissions: torch.Tensor, mask: torch.Tensor, transitions: torch.Tensor, start: torch.Tensor, end: torch.Tensor
) -> torch.Tensor:
    """Compute the largest score of a path through each label of each token, with the best path above all others.

    Args:
        emissions: `[B, T, K]`, float32 or float64; not read at padding.
        mask: `[B, T]`, bool, True = token, in any arrangement.
        transitions: `[K, K]`.
        start: `[K]`.
        end: `[K]`.

    Returns:
        `[B, T, K]`, 0 at padding.
    """
    if is_host_readable(emissions):
        return _max_product_on_host(emissions.detach(), mask, transitions.detach(), start.detach(), end.detach())
    lattice = Lattice.of(mask)
    packed = lattice.pack(emissions)  # [N, K]
    before, after = (scores.repeat(len(packed), 1) for scores in (start, end))  # [N, K], best score up to and from each label
    for tokens, previous in reversed([*neighbors(lattice.slices)]):
        best = (transitions + (packed[tokens] + after[tokens])[:, None]).amax(2)
        after[previous] = lattice.keep_where_empty(tokens, after[tokens], best)
    for tokens, previous in neighbors(lattice.slices):
        before[tokens] = ((before[previous] + packed[previous])[:, :, None] + transitions).amax(1)
    path = _best_path(packed, after, transitions, start, lattice.slices)
    return lattice.unpack(_raise_path(before + packed + after, path))


def _max_product_on_host(
    emissions: torch.Tensor, mask: torch.Tensor, transitions: torch.Tensor, start: torch.Tensor, end: torch.Tensor
) -> torch.Tensor:
    num_labels = len(transitions)
    result = emissions.new_zeros(mask.numel(), num_labels)
    if mask.numpy().any():
        steps, max_plus = _Steps.of(mask), _MaxPlus(transitions, len(mask))
        order, rank = max_plus.matrices.order, max_plus.matrices.rank
        packed = emissions.reshape(-1, num_labels).numpy().take(steps.tokens, 0).take(order, 1)  # [N, K]
        from_both_ends = packed[:, None].repeat(2, 1)  # [N, 2, K]
        from_both_ends[:, 1] = packed.take(steps.mirrored, 0)
        # Best score of what precedes each label of each token, and of what follows it, [N, 2, K].
        best = torch.stack([start, end]).numpy().take(order, 1)[None].repeat(len(packed), 0)
        max_plus.set_margin(packed, best[0])
        for step, previous in neighbors(steps.slices):
            max_plus.max_over_neighbors(best[previous] + from_both_ends[previous], best[step])
        before, after = best[:, 0], best[steps.mirrored, 1]
        until = before + packed
        scores = (until + after).take(rank, 1)
        if not _is_path(scores.argmax(1), rank, before, until, transitions.numpy(), steps):
            packed, after = packed.take(rank, 1), after.take(rank, 1)
            path = _best_path(torch.from_numpy(packed), torch.from_numpy(after), transitions, start, steps.slices)
            scores = _raise_path(torch.from_numpy(scores), path).numpy()
        result.numpy()[steps.tokens] = scores
    return result.view(*mask.shape, num_labels)


class _Steps(NamedTuple):
    """The N tokens of a batch: the first token of each row, longest row first, then the second ones, and so on.

    Attributes:
        tokens: `[N]`, row * T + column.
        positions: `[N]`, 0 to N - 1.
        previous: `[N]`, position of the token before each one in its row; any, if there is none.
        mirrored: `[N]`, position of the token that is as far from the end of the row as each one is from the start.
        slices: The positions of each step, as those of a `Lattice`.
    """

    tokens: Array
    positions: Array
    previous: Array
    mirrored: Array
    slices: list[slice]

    @classmethod
    def of(cls, mask: torch.Tensor) -> "_Steps":
        """Sort the tokens of a mask `[B, T]`, bool, with one token or more."""
        is_token = mask.numpy()
        lengths = is_token.sum(1)
        order = (-lengths).argsort(kind="stable")
        lengths = lengths[order]
        columns = is_token[order].nonzero()[1]  # of the tokens of the first row, then of the second one ...
        row_starts = lengths.cumsum() - lengths
        positions = torch.arange(len(columns), device=mask.device).numpy()
        has_token = positions[: lengths[0], None] < lengths  # [steps, B]
        steps, ranks = has_token.nonzero()
        sizes = has_token.sum(1)
        stops = sizes.cumsum()
        starts = stops - sizes
        return cls(
            order[ranks] * mask.shape[1] + columns[row_starts[ranks] + steps],
            positions,
            starts[steps - 1] + ranks,
            starts[lengths[ranks] - 1 - steps] + ranks,
            [slice(start, stop) for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)],
        )


class _Matrices(NamedTuple):
    """Transitions between sorted labels, split where IOB2 forbids about half of them.

    I-X of IOB2 may only follow B-X and I-X, and only these are compared. All other labels may follow any label.

    Attributes:
        order: `[K]`, int64, the labels in the order of all other values: D labels that are no I-X, the last E of them the B-X
            that have an I-X, then these E I-X in the same order.
        rank: `[K]`, int64, where each label stands in this order.
        scores: `[K, 1, 1, D + padding]`, of transitions to the first D labels.
        reversed_scores: `[D, 1, 1, K + padding]`, the same.
        inside_scores: `[2, E]`, of transitions from B-X and from I-X to I-X.
        both_scores: `[K, 2, 1, K + padding]`, of all transitions, and reversed.
        scores_by_label: `[2 K, K]`, of the transitions from each label, then of those to it.
        margin: How far a label may be behind the best one and still be the best neighbor of a label: the largest difference
            between the scores of two transitions to one of the first D labels, or from one label to two of these.
    """

    order: Array
    rank: Array
    scores: torch.Tensor
    reversed_scores: torch.Tensor
    inside_scores: Array
    both_scores: torch.Tensor
    scores_by_label: Array
    margin: float


@lru_cache(maxsize=4)
def _sort_transitions(values: bytes, dtype: torch.dtype) -> _Matrices:
    transitions = torch.frombuffer(bytearray(values), dtype=dtype)
    transitions = transitions.view(isqrt(len(transitions)), -1)
    labels, num_pairs = _pair_labels(transitions.isneginf().tolist())
    order = torch.tensor(labels, device=transitions.device)
    transitions = transitions[order][:, order]
    scores, to_insides = transitions.split([len(labels) - num_pairs, num_pairs], dim=1)
    inside_scores = to_insides[len(labels) - 2 * num_pairs :].view(2, num_pairs, num_pairs).diagonal(dim1=1, dim2=2)
    return _Matrices(
        order.numpy(),
        order.argsort().numpy(),
        _pad_targets(scores[:, None]),
        _pad_targets(scores.T[:, None]),
        inside_scores.numpy(),
        _pad_targets(torch.stack([transitions, transitions.T], 1)),
        torch.cat([transitions, transitions.T]).numpy(),
        _largest_range(scores) if (transitions < float("inf")).all() else float("inf"),
    )


def _pad_targets(scores: torch.Tensor) -> torch.Tensor:
    """Add targets that are not read, up to a multiple of what a CPU adds at once: `[I, C, J]` -> `[I, C, 1, J + padding]`."""
    return nn.functional.pad(scores, (0, -scores.shape[2] % 16))[:, :, None]


def _largest_range(scores: torch.Tensor) -> float:
    """Return the largest difference between two scores of a row, or of a column, `[I, J]`, or a little more."""
    largest = max(float((scores.amax(dim) - scores.amin(dim)).max()) for dim in (0, 1))
    return largest * (1 + 4 * torch.finfo(scores.dtype).eps)


def _pair_labels(is_forbidden: list[list[bool]]) -> tuple[list[int], int]:
    """Sort labels as `_Matrices` does.

    Args:
        is_forbidden: Whether a transition from the row to the column is forbidden.

    Returns:
        The labels, and the number of I-X that may only follow B-X and themselves: 0 if one B-X would be that of two or an I-X.
    """
    labels = [*range(len(is_forbidden))]
    pairs = {}
    for label in labels:
        sources = [source for source in labels if not is_forbidden[source][label]]
        if len(sources) == 2 and label in sources:
            pairs[label] = sum(sources) - label
    paired = {*pairs, *pairs.values()}
    if len(paired) < 2 * len(pairs):
        return labels, 0
    return [*(label for label in labels if label not in paired), *pairs.values(), *pairs], len(pairs)


class _MaxPlus:
    """The steps of the Viterbi algorithm.

    A label that is far behind the best one of its row cannot be the best neighbor of any label: where few labels are not, only
    these candidates are compared.

    Args:
        transitions: `[K, K]`.
        num_rows: Largest number of rows of a step.

    Attributes:
        margin: How far behind the best label a candidate may be. If it is infinite, all labels are compared.
    """

    def __init__(self, transitions: torch.Tensor, num_rows: int):
        self.matrices = _sort_transitions(transitions.numpy().tobytes(), transitions.dtype)
        self.num_first = len(self.matrices.reversed_scores)
        # Memory of the sums of a step, which would take longer to allocate than to compute.
        sums_of_row = self.matrices.both_scores.numel()
        self.workspace = transitions.new_empty(max(sums_of_row, min(sums_of_row * num_rows, _CACHED_SUMS)))
        self.row_starts = torch.arange(2 * num_rows + 1, device=transitions.device).numpy() * len(transitions)
        self.numbers = torch.arange(_MOST_CANDIDATES, device=transitions.device).numpy()
        self.margin = float("inf")

    def set_margin(self, packed: Array, ends: Array) -> None:
        """Set the margin, unless a score is infinite or no number, so that the best label of a row may not be known.

        Args:
            packed: `[N, K]`, emissions.
            ends: `[2, K]`, scores of the first and of the last label.
        """
        if packed.max() < float("inf") and ends.max() < float("inf"):  # nor is any of them no number
            self.margin = self.matrices.margin

    def max_over_neighbors(self, x: Array, best: Array) -> None:
        """Compute `best_0j = max_i (x_0i + transitions_ij)` and `best_1i = max_j (transitions_ij + x_1j)`.

        Args:
            x: `[rows, 2, K]`, is overwritten.
            best: `[rows, 2, K]`, is overwritten.
        """
        matrices, num_first = self.matrices, self.num_first
        num_sums = len(x) * matrices.both_scores.numel()
        has_margin = self.margin < float("inf")
        if num_sums < (_VERY_FEW_SUMS if has_margin else _FEW_SUMS) or (num_first == x.shape[2] and not has_margin):
            self._max_over_sources(x, matrices.both_scores, best)
            return
        to_inside = (self._begins_and_insides(x[:, 0]) + matrices.inside_scores).max(1)
        from_inside = x[:, 1, None, num_first:] + matrices.inside_scores
        x[:, 1, num_first:] = -float("inf")
        if not (has_margin and self._max_over_candidates(x, best)):
            self._max_over_sources(x[:, :1], matrices.scores, best[:, :1, :num_first])
            self._max_over_sources(x[:, 1:, :num_first], matrices.reversed_scores, best[:, 1:])
        best[:, 0, num_first:] = to_inside
        begins_and_insides = self._begins_and_insides(best[:, 1])
        from_inside.clip(min=begins_and_insides, out=begins_and_insides)

    def _max_over_candidates(self, x: Array, best: Array) -> bool:
        """Compute the same but for I-X, if there are few candidates, and return whether there are."""
        num_rows = 2 * len(x)
        least = torch.from_numpy(x).amax(2).numpy()
        least -= self.margin
        candidates = (x >= least[:, :, None]).reshape(-1).nonzero()[0][None]
        if candidates.shape[1] != num_rows:
            if candidates.shape[1] > _FEW_CANDIDATES * num_rows:
                self.margin = float("inf")  # nor are there few of them in other steps
                return False
            starts = candidates[0].searchsorted(self.row_starts[: num_rows + 1])
            counts = starts[1:] - starts[:-1]
            most = counts.max()
            if most > _MOST_CANDIDATES:
                return False
            numbers = starts[:-1] + self.numbers[:most, None]
            candidates = candidates[0].take(numbers.clip(max=starts[1:] - 1))
        sums = self.matrices.scores_by_label.take(candidates % (2 * x.shape[2]), 0)  # [candidates, 2 rows, K]
        sums += x.reshape(-1).take(candidates)[:, :, None]
        best[:] = sums.max(0).reshape(best.shape)
        return True

    def _max_over_sources(self, x: Array, scores: torch.Tensor, best: Array) -> None:
        """Compute `best_j = max_i (x_i + scores_ij)`: `[rows, C, I]`, `[I, C, 1, J + padding]`, `[rows, C, J]`."""
        num_sources, num_directions, _, width = scores.shape
        best = best.transpose(1, 0, 2)
        if len(x) == 1:  # for one row numpy takes less time
            best[:] = (x.transpose(2, 1, 0)[..., None] + scores.numpy()).max(0)[..., : best.shape[2]]
            return
        rows_at_once = len(self.workspace) // scores.numel()
        for first in range(0, len(x), rows_at_once):
            rows = slice(first, first + rows_at_once)
            source = torch.from_numpy(x[rows].transpose(2, 1, 0)[..., None])  # [I, C, rows, 1]
            shape = num_sources, num_directions, source.shape[2], width
            sums = self.workspace[: source.numel() * width].view(shape)
            largest = torch.add(source, scores, out=sums).numpy().reshape(num_sources, -1).max(0)
            best[:, rows] = largest.reshape(shape[1:])[..., : best.shape[2]]

    def _begins_and_insides(self, x: Array) -> Array:
        """View the values of all B-X that have an I-X, and of these I-X: `[rows, K]` -> `[rows, 2, E]`."""
        num_pairs = self.matrices.inside_scores.shape[1]
        return x[:, x.shape[1] - 2 * num_pairs :].reshape(len(x), 2, num_pairs)


def _is_path(labels: Array, rank: Array, before: Array, until: Array, transitions: Array, steps: _Steps) -> bool:
    """Return whether the best way to each of the labels `[N]` comes from the label of the previous token.

    Args:
        labels: `[N]`.
        rank: `[K]`, where each label stands in the second dimension of `before` and `until`.
        before: `[N, K]`, best score of what precedes each label of each token.
        until: `[N, K]`, best score of what ends with each label of each token.
        transitions: `[K, K]`.
        steps: The tokens.
    """
    num_first = steps.slices[0].stop
    ranks, previous = rank[labels], steps.previous[num_first:]
    way = until[previous, ranks[previous]] + transitions[labels[previous], labels[num_first:]]
    return bool((way == before[steps.positions[num_first:], ranks[num_first:]]).all())


def _best_path(
    packed: torch.Tensor, after: torch.Tensor, transitions: torch.Tensor, start: torch.Tensor, slices: list[slice]
) -> torch.Tensor:
    """Select `y_t = argmax_j (transitions[y_t-1, j] + packed[t, j] + after[t, j])`, the smallest label of several: `[N]`."""
    first = slices[0]
    path = torch.empty(len(packed), dtype=torch.long, device=packed.device)
    path[first] = (start + packed[first] + after[first]).argmax(-1)
    for tokens, previous in neighbors(slices):
        path[tokens] = (transitions[path[previous]] + packed[tokens] + after[tokens]).argmax(-1)
    return path


def _raise_path(scores: torch.Tensor, path: torch.Tensor) -> torch.Tensor:
    """Raise the score of each label of a path above the others, if argmax would not select it: `[N, K]`."""
    best = scores.amax(-1)
    raised = best + best.abs().clamp(min=1) * torch.finfo(scores.dtype).eps
    path_scores = torch.where(scores.argmax(-1) == path, best, raised)
    return scores.scatter(1, path[:, None], path_scores[:, None])
