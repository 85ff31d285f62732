"""A linear-chain conditional random field over the tokens of each row, as if its padding were not there.

A sequence of labels y of a row with n tokens has the score

    s(x, y) = start[y_1] + sum_t emissions[t, y_t] + sum_t transitions[y_t-1, y_t] + end[y_n]

and the probability exp(s(x, y)) / sum_y' exp(s(x, y')). A score of minus infinity forbids what it scores.

Source:
    Lafferty et al. 2001; Lample et al. 2016 (arXiv:1603.01360), section 2.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers.modeling_outputs import TokenClassifierOutput
from transformers.utils import logging

from .lattice import Lattice, sum_backward, sum_forward, sum_product
from .losses import IGNORED
from .masking import at_least_float32, check_values
from .viterbi import max_product

logger = logging.get_logger(__name__)

OPERATOR_NAME = "hf_maskattn::max_marginals_v1"
"""To be counted up with any change of signature or meaning: checkpoints carry this file, and a process may load several."""


@dataclass
class CRFTokenClassifierOutput(TokenClassifierOutput):
    """Output of a token classifier.

    Args:
        marginals: `[B, T, num_labels]`, probability of each label of each token, if requested.
    """

    marginals: torch.Tensor | None = None


class LinearChainCRF(nn.Module):
    """The scores of transitions between labels, learned as log-probabilities that are not normalized.

    Args:
        num_labels: Number K of labels.
        labels: Names of the labels by id. Transitions that IOB2 forbids between them have the score minus infinity. None allows
            all transitions.
    """

    transition_constraints: torch.Tensor
    start_constraints: torch.Tensor

    def __init__(self, num_labels: int, labels: Sequence[str] | None = None):
        super().__init__()
        self.labels = None if labels is None else [*labels]
        if labels is not None and not follows_iob2(labels):
            logger.warning_once(
                f"The labels {', '.join(labels[:5])}{', ...' if len(labels) > 5 else ''} belong to no tag scheme, so that the "
                "CRF allows all transitions. Set id2label if they should be IOB2 labels (O, B-X, I-X)."
            )
        self.transitions = nn.Parameter(torch.zeros(num_labels, num_labels))  # from the row to the column
        self.start = nn.Parameter(torch.zeros(num_labels))
        self.end = nn.Parameter(torch.zeros(num_labels))
        for name, value in self.build_constraints().items():
            self.register_buffer(name, value, persistent=False)

    def build_constraints(self) -> dict[str, torch.Tensor]:
        """Build the buffers, which no checkpoint holds: minus infinity for what the scheme forbids, 0 for all else."""
        labels = [""] * len(self.start) if self.labels is None else self.labels
        transitions, start = (torch.zeros(x.shape).masked_fill(x, -float("inf")) for x in scheme_constraints(labels))
        return {"transition_constraints": transitions, "start_constraints": start}

    def constrained_scores(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return transitions `[K, K]`, start `[K]` and end `[K]`, minus infinity where the scheme forbids them."""
        return self.transitions + self.transition_constraints, self.start + self.start_constraints, self.end

    def forward(self, emissions: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the negative log-likelihood of each row: `[B]`.

        Args:
            emissions: `[B, T, K]`, scores of the labels of each token; not read at padding.
            mask: `[B, T]`, bool, True = token.
            labels: `[B, T]`, int, the label of each token, or -100: the probability is summed over its labels.

        Raises:
            ValueError: If a row has labels that the scheme forbids.
        """
        log_probability = _log_likelihood_between_graphs(emissions, mask, labels, *self.constrained_scores())
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

    def marginals(self, emissions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Compute the probability of each label of each token; see `marginals`."""
        return marginals(emissions, mask, *self.constrained_scores())

    def max_marginals(self, emissions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Compute the largest score of a sequence with each label at each token; see `max_marginals`."""
        return max_marginals(emissions, mask, *self.constrained_scores())


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
    lattice = Lattice.of(mask)
    packed, packed_labels = lattice.pack(_widen(emissions)), lattice.pack_labels(labels)  # [N, K], [N]
    label = torch.arange(packed.shape[-1], device=packed.device)
    is_excluded = (packed_labels[:, None] != label) & (packed_labels != IGNORED)[:, None]  # [N, K]
    both = torch.stack([packed, packed.masked_fill(is_excluded, -float("inf"))], dim=1)  # [N, 2, K]
    log_sums = sum_product(both, _widen(transitions), _widen(start), _widen(end), lattice)  # [B, 2]
    return lattice.unsort(log_sums[:, 1] - log_sums[:, 0]).to(at_least_float32(emissions).dtype)


@torch.compiler.disable(reason="the loop over tokens would freeze their number; a loss runs between two graphs")
def _log_likelihood_between_graphs(*tensors: torch.Tensor) -> torch.Tensor:
    return log_likelihood(*tensors)


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
    lattice = Lattice.of(mask)
    packed = lattice.pack(_widen(emissions))[:, None]  # [N, 1, K]
    log_sums, saved = sum_forward(packed, _widen(transitions), _widen(start), _widen(end), lattice)
    probabilities, *_ = sum_backward(torch.ones_like(log_sums), saved, lattice)  # [N, 1, K]
    return lattice.unpack(probabilities[:, 0].to(at_least_float32(emissions).dtype))


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
    if torch.compiler.is_compiling():  # traced into, the loop over tokens would freeze their number
        return torch.ops.hf_maskattn.max_marginals_v1(emissions, mask, transitions, start, end)
    return _max_marginals(emissions, mask, transitions, start, end)


def _max_marginals(
    emissions: torch.Tensor, mask: torch.Tensor, transitions: torch.Tensor, start: torch.Tensor, end: torch.Tensor
) -> torch.Tensor:
    emissions = at_least_float32(emissions)
    return max_product(emissions, mask, *(scores.to(emissions.dtype) for scores in (transitions, start, end)))


# Once in a process: this file may be loaded twice, installed and next to weights.
if not hasattr(torch.ops.hf_maskattn, OPERATOR_NAME.partition("::")[2]):
    _operator = torch.library.custom_op(OPERATOR_NAME, _max_marginals, mutates_args=())

    @_operator.register_fake
    def _(emissions, mask, transitions, start, end):
        return torch.empty_like(at_least_float32(emissions), memory_format=torch.contiguous_format)


def _widen(x: torch.Tensor) -> torch.Tensor:
    """Convert to float64, in which probabilities of rows do not underflow; to float32 on a device without it."""
    return x.float() if x.device.type == "mps" else x.double()
