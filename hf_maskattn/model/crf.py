"""A linear-chain conditional random field over the tokens of each row, as if its padding were not there.

A sequence of labels y of a row with n tokens has the score

    s(x, y) = start[y_1] + sum_t emissions[t, y_t] + sum_t transitions[y_t-1, y_t] + end[y_n]

and the probability exp(s(x, y)) / sum_y' exp(s(x, y')). A score of minus infinity forbids what it scores.

Source:
    Lafferty et al. 2001; Lample et al. 2016 (arXiv:1603.01360), section 2.2.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from .losses import IGNORED
from .masking import at_least_float32, check_values, is_host_readable
from .packing import PackedLayout, build_packed_layout, pack_tokens, split_time_exactly, unpack_tokens


class LinearChainCRF(nn.Module):
    """The scores of transitions between labels, learned as log-probabilities that are not normalized.

    Args:
        num_labels: Number K of labels.
        labels: Names of the labels by id. Transitions that IOB2 forbids between them have the score minus infinity. None allows
            all transitions.
    """

    forbidden_transitions: torch.Tensor
    forbidden_start: torch.Tensor

    def __init__(self, num_labels: int, labels: Sequence[str] | None = None):
        super().__init__()
        self.labels = None if labels is None else [*labels]
        self.transitions = nn.Parameter(torch.zeros(num_labels, num_labels))  # from the row to the column
        self.start = nn.Parameter(torch.zeros(num_labels))
        self.end = nn.Parameter(torch.zeros(num_labels))
        for name, value in self.build_constraints().items():
            self.register_buffer(name, value, persistent=False)

    def build_constraints(self) -> dict[str, torch.Tensor]:
        """Build the buffers, which no checkpoint holds."""
        num_labels = len(self.start)
        if self.labels is None:
            transitions, start = (
                torch.zeros(num_labels, num_labels, dtype=torch.bool),
                torch.zeros(num_labels, dtype=torch.bool),
            )
        else:
            transitions, start = scheme_constraints(self.labels)
        return {"forbidden_transitions": transitions, "forbidden_start": start}

    def constrained_scores(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return transitions `[K, K]`, start `[K]` and end `[K]`, minus infinity where the scheme forbids them."""
        infinity = float("inf")
        transitions = self.transitions.masked_fill(self.forbidden_transitions, -infinity)
        return transitions, self.start.masked_fill(self.forbidden_start, -infinity), self.end

    def forward(self, emissions: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the negative log-likelihood of each row: `[B]`.

        Args:
            emissions: `[B, T, K]`, scores of the labels of each token; not read at padding.
            mask: `[B, T]`, bool, True = token.
            labels: `[B, T]`, int, the label of each token, or -100: the probability is summed over its labels.

        Raises:
            ValueError: If a row has labels that the scheme forbids.
        """
        log_probability = log_likelihood(emissions, mask, labels, *self.constrained_scores())
        is_valid = log_probability != -float("inf")
        check_values(
            is_valid,
            lambda: (
                "`labels` must follow IOB2, as the names of the labels do, where I-X is only allowed after B-X or I-X, got row "
                f'{int((~is_valid).nonzero()[0])}. Correct the labels, or allow all transitions with tag_scheme="none" in the '
                "configuration."
            ),
            "labels holds a sequence that IOB2 forbids",
        )
        return -log_probability


def scheme_constraints(labels: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what IOB2 forbids between labels: "I-X" must follow "B-X" or "I-X".

    Args:
        labels: Names of the labels by id: "O", "B-X" and "I-X". Names of any other kind, or an "I-X" without its "B-X",
            belong to no scheme or another one: nothing is forbidden.

    Returns:
        Forbidden transitions `[K, K]`, from the row to the column, and forbidden first labels `[K]`, bool.
    """
    forbidden_transitions = torch.zeros(len(labels), len(labels), dtype=torch.bool)
    forbidden_start = torch.zeros(len(labels), dtype=torch.bool)
    if follows_iob2(labels):
        for column, label in enumerate(labels):
            if label.startswith("I-"):
                previous = (f"B-{label[2:]}", label)
                forbidden_transitions[:, column] = torch.tensor([name not in previous for name in labels])
                forbidden_start[column] = True
    return forbidden_transitions, forbidden_start


def follows_iob2(labels: Sequence[str]) -> bool:
    """Return whether all labels are "O", "B-X" or "I-X", with a "B-X" for each "I-X"."""
    names = set(labels)
    return all(
        label == "O" or label.startswith("B-") or (label.startswith("I-") and f"B-{label[2:]}" in names) for label in names
    )


def log_partition(
    emissions: torch.Tensor, mask: torch.Tensor, transitions: torch.Tensor, start: torch.Tensor, end: torch.Tensor
) -> torch.Tensor:
    """Sum exp(score) over all sequences of labels of each row: the logarithm `[B]`, 0 for a row without a token.

    Args:
        emissions: `[B, T, K]`; not read at padding.
        mask: `[B, T]`, bool, True = token, in any arrangement.
        transitions: `[K, K]`, score of each transition, from the row to the column, minus infinity where it is forbidden.
        start: `[K]`, score of each first label.
        end: `[K]`, score of each last label.

    Numerics:
        As `log_likelihood`.
    """
    steps = _Steps.of(mask)
    packed = steps.pack(_widen(emissions))[:, None]  # [N, 1, K]
    log_sums = _LogPartition.apply(packed, _widen(transitions), _widen(start), _widen(end), steps)  # [B, 1]
    return steps.unsort(log_sums)[:, 0].to(at_least_float32(emissions).dtype)


def log_likelihood(
    emissions: torch.Tensor,
    mask: torch.Tensor,
    labels: torch.Tensor,
    transitions: torch.Tensor,
    start: torch.Tensor,
    end: torch.Tensor,
) -> torch.Tensor:
    """Compute the log-probability of the labels of each row: `[B]`, 0 for a row without a label.

    Args:
        emissions: `[B, T, K]`; not read at padding.
        mask: `[B, T]`, bool, True = token, in any arrangement.
        labels: `[B, T]`, int, the label of each token, or -100: the probability is summed over its labels.
        transitions: `[K, K]`, score of each transition, from the row to the column, minus infinity where it is forbidden.
        start: `[K]`, score of each first label.
        end: `[K]`, score of each last label.

    Returns:
        The logarithms, minus infinity where a forbidden transition has to be taken.

    Numerics:
        Sums are computed in float64 where the device has it, with the largest score of each step taken out.
    """
    steps = _Steps.of(mask)
    packed, packed_labels = steps.pack(_widen(emissions)), steps.pack_labels(labels)  # [N, K], [N]
    label = torch.arange(packed.shape[-1], device=packed.device)
    is_excluded = (packed_labels[:, None] != label) & (packed_labels != IGNORED)[:, None]  # [N, K]
    both = torch.stack([packed, packed.masked_fill(is_excluded, -float("inf"))], dim=1)  # [N, 2, K]
    log_sums = _LogPartition.apply(both, _widen(transitions), _widen(start), _widen(end), steps)  # [B, 2]
    return steps.unsort(log_sums[:, 1] - log_sums[:, 0]).to(at_least_float32(emissions).dtype)


@torch.no_grad()
def marginals(
    emissions: torch.Tensor, mask: torch.Tensor, transitions: torch.Tensor, start: torch.Tensor, end: torch.Tensor
) -> torch.Tensor:
    """Compute the probability of each label of each token, summed over the labels of all other tokens, without gradient.

    Args:
        emissions: `[B, T, K]`; not read at padding.
        mask: `[B, T]`, bool, True = token, in any arrangement.
        transitions: `[K, K]`, score of each transition, from the row to the column, minus infinity where it is forbidden.
        start: `[K]`, score of each first label.
        end: `[K]`, score of each last label.

    Returns:
        `[B, T, K]`, which sum to one over the labels; 0 at padding.

    Numerics:
        As `log_likelihood`.
    """
    steps = _Steps.of(mask)
    packed = steps.pack(_widen(emissions))[:, None]  # [N, 1, K]
    log_sums, saved = _sum_forward(packed, _widen(transitions), _widen(start), _widen(end), steps)
    probabilities, *_ = _sum_backward(torch.ones_like(log_sums), saved, steps)  # [N, 1, K]
    return steps.unpack(probabilities[:, 0].to(at_least_float32(emissions).dtype))


@torch.no_grad()
def max_marginals(
    emissions: torch.Tensor, mask: torch.Tensor, transitions: torch.Tensor, start: torch.Tensor, end: torch.Tensor
) -> torch.Tensor:
    """Compute the largest score of a sequence that has a label at a token, for each label and token, without gradient.

    Their argmax is the best sequence: the path of the Viterbi algorithm. Of several best sequences it is the one with the
    smallest labels, compared from the first token on. Where a tie or rounding would let argmax select another label, the
    label of the path is raised by one unit in the last place.

    Args:
        emissions: `[B, T, K]`; not read at padding.
        mask: `[B, T]`, bool, True = token, in any arrangement. Padding is skipped: the neighbors of a token are the nearest
            tokens before and after it.
        transitions: `[K, K]`, score of each transition, from the row to the column, minus infinity where it is forbidden.
        start: `[K]`, score of each first label.
        end: `[K]`, score of each last label.

    Returns:
        `[B, T, K]`, 0 at padding.
    """
    steps = _Steps.of(mask)
    packed = steps.pack(at_least_float32(emissions))  # [N, K]
    transitions, start, end = (scores.to(packed.dtype) for scores in (transitions, start, end))
    after = torch.empty_like(packed)  # best score of what follows each token
    state = end.repeat(len(steps.has_token), 1)  # [B, K]
    for step, tokens in reversed([*enumerate(steps.slices)]):
        rows = tokens.stop - tokens.start
        after[tokens] = state[:rows]
        if step:
            best = ((packed[tokens] + after[tokens])[:, None, :] + transitions).amax(-1)
            state[:rows] = steps.keep_where_empty(tokens, state[:rows], best)
    before = torch.empty_like(packed)  # best score of what precedes each token
    path = torch.zeros(len(packed), dtype=torch.long, device=packed.device)
    for step, tokens in enumerate(steps.slices):
        rows = tokens.stop - tokens.start
        if step == 0:
            before[tokens] = start
            from_path = start
        else:
            previous = slice(steps.slices[step - 1].start, steps.slices[step - 1].start + rows)
            before[tokens] = ((before[previous] + packed[previous])[:, None, :] + transitions.T).amax(-1)
            from_path = transitions[path[previous]]  # [rows, K]
        path[tokens] = (from_path + packed[tokens] + after[tokens]).argmax(-1)
    return steps.unpack(_raise_path(before + packed + after, path))


def _raise_path(scores: torch.Tensor, path: torch.Tensor) -> torch.Tensor:
    """Raise the score of each label of a path above the others, if argmax would not select it: `[N, K]`."""
    best = scores.amax(-1)
    raised = best + best.abs().clamp(min=1) * torch.finfo(scores.dtype).eps
    path_scores = torch.where(scores.argmax(-1) == path, best, raised)
    return scores.scatter(1, path[:, None], path_scores[:, None])


class _Steps(NamedTuple):
    """The tokens of a batch in the packed layout, in which rows are sorted by length and have no holes.

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
    def of(cls, mask: torch.Tensor) -> "_Steps":
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
        """Bring values back to their tokens: `[N, K]` -> `[B, T, K]`, 0 at padding."""
        padded = torch.cat([packed, packed.new_zeros(1, packed.shape[1])])
        return unpack_tokens(padded[None], self.layout)[: self.shape[0], : self.shape[1]]

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


def _add_padding(x: torch.Tensor) -> torch.Tensor:
    """Add a row to a batch without rows, and a column to one without columns: `[B, T, ...]`."""
    rows, columns = (int(not size) for size in x.shape[:2])
    return nn.functional.pad(x, (*[0, 0] * (x.dim() - 2), 0, columns, 0, rows)) if rows or columns else x


class _LogPartition(torch.autograd.Function):
    """The logarithm of the sum of exp(score) over all sequences. Its gradient by a score is the expected number of its uses."""

    @staticmethod
    def forward(ctx, packed, transitions, start, end, steps):
        log_sums, saved = _sum_forward(packed, transitions, start, end, steps)
        ctx.save_for_backward(*saved)
        ctx.steps = steps
        return log_sums

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_log_sums):
        return *_sum_backward(grad_log_sums, ctx.saved_tensors, ctx.steps), None


def _sum_forward(
    packed: torch.Tensor, transitions: torch.Tensor, start: torch.Tensor, end: torch.Tensor, steps: _Steps
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Run the forward algorithm.

    Args:
        packed: `[N, S, K]`, emissions in the packed layout; S kinds of them have the same transitions.
        transitions: `[K, K]`.
        start: `[K]`.
        end: `[K]`.
        steps: The steps of the layout.

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
    state = start.repeat(len(steps.has_token), packed.shape[1], 1)  # [B, S, K], log sum of all beginnings with each last label
    for step, tokens in enumerate(steps.slices):
        current = state[: tokens.stop - tokens.start]
        score = start + packed[tokens]
        if step:
            top = current.amax(-1, keepdim=True).clamp(min=lowest)
            shares[tokens] = (current - top).exp()
            totals[tokens] = shares[tokens] @ factors
            score = totals[tokens].log() + (top + largest) + packed[tokens]
        state[: len(current)] = steps.keep_where_empty(tokens, current, score)
    log_sums = torch.logsumexp(state + end, -1).masked_fill(~steps.has_token, 0)  # [B, S]
    last = (state + end - log_sums.clamp(min=lowest)[..., None]).exp()  # [B, S, K], probability of each last label
    return log_sums, (shares, totals, factors, last * steps.has_token[..., None])


def _sum_backward(
    grad_log_sums: torch.Tensor, saved: tuple[torch.Tensor, ...], steps: _Steps
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute the expected number of uses of each score from the last token to the first, each row weighted by its gradient.

    With A the shares and E the factors, the probability of label i of one token and j of the next one is
    `A_i E_ij probability_j / (A E)_j`.

    Args:
        grad_log_sums: `[B, S]`.
        saved: From `_sum_forward`.
        steps: The steps of the layout.

    Returns:
        The gradients of emissions `[N, S, K]`, transitions `[K, K]`, start `[K]` and end `[K]`.
    """
    shares, totals, factors, last = saved
    grad_packed, ratios = torch.zeros_like(shares), torch.zeros_like(shares)
    state = last * grad_log_sums[..., None]  # [B, S, K], weighted probability of each label
    grad_end = state.sum((0, 1))
    zero = state.new_zeros(1)
    for step, tokens in reversed([*enumerate(steps.slices)]):
        current = state[: tokens.stop - tokens.start]
        grad_packed[tokens] = steps.keep_where_empty(tokens, zero, current)
        if step:
            ratio = grad_packed[tokens] / totals[tokens].clamp(min=torch.finfo(totals.dtype).tiny)
            ratios[tokens] = ratio
            state[: len(current)] = steps.keep_where_empty(tokens, current, shares[tokens] * (ratio @ factors.T))
    grad_start = grad_packed[steps.slices[0]].sum((0, 1))
    grad_transitions = factors * (shares.flatten(0, 1).T @ ratios.flatten(0, 1))
    return grad_packed, grad_transitions, grad_start, grad_end


def _widen(x: torch.Tensor) -> torch.Tensor:
    """Convert to float64, or to float32 on a device without it, outside of which probabilities of rows underflow."""
    return x.float() if x.device.type == "mps" else x.double()
