"""The CRF against the enumeration of all sequences of labels."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from hf_maskattn.model.crf import LinearChainCRF, follows_iob2, log_likelihood, marginals, max_marginals, scheme_constraints
from tests.crf_reference import ReferenceCRF, over_rows
from tests.masks import MASK_KINDS, ragged_mask
from tests.tolerances import GRADIENT_BY_DTYPE, OUTPUT_BY_DTYPE, assert_near

IOB2 = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
EXACT = 1e-10
INFINITY = float("inf")


@st.composite
def crf_cases(draw, max_labels=3, max_time=4, dtype=torch.float64):
    """Draw emissions with NaN at padding, a mask, partial labels and scores of a CRF, all of which require a gradient."""
    num_labels, batch_size, time = draw(st.integers(1, max_labels)), draw(st.integers(1, 4)), draw(st.integers(1, max_time))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    mask = ragged_mask(batch_size, time, draw(st.sampled_from(MASK_KINDS)))
    scale = draw(st.sampled_from([0.1, 1.0, 20.0]))
    emissions = scale * torch.randn(batch_size, time, num_labels, dtype=dtype)
    labels = torch.randint(num_labels, mask.shape)
    labels[torch.rand(mask.shape) < draw(st.sampled_from([0.0, 0.4, 1.0]))] = -100
    scores = [torch.randn(*shape, dtype=dtype) for shape in ((num_labels, num_labels), (num_labels,), (num_labels,))]
    return emissions, mask, labels, [score.requires_grad_() for score in scores]


def with_padding(emissions, mask):
    """Overwrite padding with NaN; returns a leaf of the graph."""
    return emissions.masked_fill(~mask[..., None], math.nan).requires_grad_()


@given(crf_cases())
def test_log_likelihood_equals_enumeration(case):
    emissions, mask, labels, scores = case
    emissions = with_padding(emissions, mask)
    actual = log_likelihood(emissions, mask, labels, *scores)
    expected = torch.stack(over_rows(ReferenceCRF(*scores).log_likelihood, mask, emissions, labels))
    expected = expected + 0 * scores[0].sum()  # torch 2.8 needs a graph even where no row has a token
    assert_near(actual, expected, EXACT)
    weights = torch.randn(len(mask), dtype=torch.float64)
    gradients = torch.autograd.grad((weights * actual).sum(), [emissions, *scores])
    expected_gradients = torch.autograd.grad((weights * expected).sum(), [emissions, *scores], materialize_grads=True)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert_near(gradient, expected_gradient.nan_to_num(), EXACT)
    assert (gradients[0][~mask] == 0).all()


@given(crf_cases())
def test_marginals_equal_enumeration(case):
    emissions, mask, _, scores = case
    scores = [score.detach() for score in scores]
    actual = marginals(with_padding(emissions, mask), mask, *scores)
    assert_near(actual[mask], torch.cat(over_rows(ReferenceCRF(*scores).marginals, mask, emissions)), EXACT)
    assert (actual[~mask] == 0).all()


@given(crf_cases())
def test_max_marginals_equal_enumeration(case):
    emissions, mask, _, scores = case
    scores = [score.detach() for score in scores]
    actual = max_marginals(with_padding(emissions, mask), mask, *scores)
    reference = ReferenceCRF(*scores)
    assert_near(actual[mask], torch.cat(over_rows(reference.max_marginals, mask, emissions)), EXACT)
    assert (actual[~mask] == 0).all()
    for row, path in enumerate(over_rows(reference.best_path, mask, emissions)):
        assert actual[row][mask[row]].argmax(-1).tolist() == list(path)


@given(crf_cases(max_labels=4), st.booleans())
def test_max_marginals_with_forbidden_transitions(case, has_ties):
    emissions, mask, _, scores = case
    scores = [score.detach() for score in scores]
    if has_ties:
        emissions, scores = emissions.round().clamp(-1, 1), [score.round().clamp(-1, 1) for score in scores]
    transitions, *others = scores
    is_forbidden = torch.rand_like(transitions) < 0.5
    is_forbidden[:, 0] = False  # a path without forbidden transitions stays
    scores = transitions.masked_fill(is_forbidden, -INFINITY), *others
    actual, reference = max_marginals(emissions, mask, *scores), ReferenceCRF(*scores)
    for row, expected in enumerate(over_rows(reference.max_marginals, mask, emissions)):
        row_actual = actual[row][mask[row]]
        assert torch.equal(row_actual.isinf(), expected.isinf())
        assert_near(row_actual.clamp(min=-1e9), expected.clamp(min=-1e9), EXACT)
    for row, path in enumerate(over_rows(reference.best_path, mask, emissions)):
        assert actual[row][mask[row]].argmax(-1).tolist() == list(path)


@given(crf_cases())
def test_argmax_under_ties_is_one_best_path(case):
    emissions, mask, _, scores = case
    emissions, scores = emissions.round().clamp(-1, 1), [score.detach().round().clamp(-1, 1) for score in scores]
    actual = max_marginals(emissions, mask, *scores).argmax(-1)
    for row, path in enumerate(over_rows(ReferenceCRF(*scores).best_path, mask, emissions)):
        assert actual[row][mask[row]].tolist() == list(path)


@given(crf_cases(max_labels=4, max_time=7, dtype=torch.float32))
def test_float32_results_are_near_float64(case):
    emissions, mask, labels, scores = case
    scores = [score.detach() for score in scores]
    wide = emissions.double(), mask, *(score.double() for score in scores)
    assert_near(marginals(emissions, mask, *scores).double(), marginals(*wide), OUTPUT_BY_DTYPE[torch.float32])
    assert_near(max_marginals(emissions, mask, *scores).double(), max_marginals(*wide), OUTPUT_BY_DTYPE[torch.float32])
    actual = log_likelihood(emissions, mask, labels, *scores)
    assert actual.dtype == torch.float32
    assert_near(actual.double(), log_likelihood(*wide[:2], labels, *wide[2:]), OUTPUT_BY_DTYPE[torch.float32])


def test_probabilities_of_all_sequences_sum_to_one():
    crf = LinearChainCRF(5, IOB2).double()
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    emissions = torch.randn(1, 4, 5, dtype=torch.float64)
    mask = torch.tensor([[True, False, True, True]])
    paths = torch.tensor(ReferenceCRF(*crf.constrained_scores()).paths(3))
    labels = torch.full((len(paths), 4), -100)
    labels[:, mask[0]] = paths
    log_probability = log_likelihood(
        emissions.expand(len(paths), -1, -1), mask.expand(len(paths), -1), labels, *crf.constrained_scores()
    )
    torch.testing.assert_close(log_probability.exp().sum().item(), 1.0, atol=EXACT, rtol=0)


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_gradient_passes_gradcheck(kind):
    mask = ragged_mask(3, 4, kind)
    labels = torch.tensor([[0, -100, 3, 1], [3, 1, -100, 0], [-100, -100, -100, 0]])
    forbidden_transitions, forbidden_start = scheme_constraints(IOB2)

    def compute(emissions, transitions, start, end):
        transitions = transitions.masked_fill(forbidden_transitions, -INFINITY)
        start = start.masked_fill(forbidden_start, -INFINITY)
        return log_likelihood(emissions, mask, labels, transitions, start, end)

    shapes = (3, 4, 5), (5, 5), (5,), (5,)
    inputs = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(compute, inputs)


def test_rows_without_labels_cost_nothing():
    crf = LinearChainCRF(3)
    emissions = torch.randn(3, 4, 3, requires_grad=True)
    mask = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    labels = torch.full((3, 4), -100)
    labels[2] = torch.tensor([0, 1, 2, 0])
    loss = crf(emissions, mask, labels)
    loss.sum().backward()
    assert loss[:2].tolist() == [0, 0]
    assert loss[2] > 0
    assert (emissions.grad[:2] == 0).all()
    assert (emissions.grad[2] != 0).any()


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_batches_without_tokens(shape):
    crf = LinearChainCRF(3)
    emissions, mask = torch.randn(*shape, 3, requires_grad=True), torch.ones(shape, dtype=torch.bool)
    loss = crf(emissions, mask, torch.zeros(shape, dtype=torch.long))
    loss.sum().backward()
    assert loss.tolist() == [0] * shape[0]
    assert all(parameter.grad is not None for parameter in crf.parameters())
    for function in (marginals, max_marginals):
        assert function(emissions, mask, *crf.constrained_scores()).shape == (*shape, 3)


def test_forbidden_transitions_have_no_probability_and_no_gradient():
    crf = LinearChainCRF(5, IOB2)
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    emissions = torch.randn(6, 5, 5, requires_grad=True)
    mask = ragged_mask(6, 5, "holes")
    crf(emissions, mask, torch.full(mask.shape, -100).where(~mask, 0)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in (emissions, *crf.parameters()))
    assert (crf.transitions.grad[crf.transition_constraints.isneginf()] == 0).all()
    assert (crf.start.grad[crf.start_constraints.isneginf()] == 0).all()
    for row, path in enumerate(max_marginals(emissions, mask, *crf.constrained_scores()).argmax(-1)):
        previous = 0
        for label in path[mask[row]].tolist():
            assert crf.transition_constraints[previous, label] == 0
            previous = label


def test_forbidden_labels_are_rejected():
    crf = LinearChainCRF(5, IOB2)
    emissions, mask = torch.zeros(2, 3, 5), torch.ones(2, 3, dtype=torch.bool)
    labels = torch.tensor([[0, 1, 2], [0, -100, 4]])
    assert crf(emissions, mask, labels).isfinite().all()
    labels[1, 1] = 1
    with pytest.raises(ValueError, match=r"must follow IOB2.* got row 1\. .*tag_scheme"):
        crf(emissions, mask, labels)


def test_large_scores_do_not_overflow():
    emissions = torch.tensor([[[0.0, -300.0], [-300.0, 0.0], [0.0, 1e30]]], requires_grad=True)
    mask, labels = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[0, 1, 1]])
    scores = torch.tensor([[0.0, -INFINITY], [200.0, 100.0]]), torch.zeros(2), torch.zeros(2)
    log_probability = log_likelihood(emissions, mask, labels, *scores)
    assert log_probability.tolist() == [-INFINITY]
    log_probability = log_likelihood(emissions, mask, torch.ones_like(labels), *scores)
    log_probability.sum().backward()
    assert log_probability.tolist() == [0]
    assert emissions.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_float32(dtype):
    crf = LinearChainCRF(4)
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    emissions, mask = torch.randn(3, 5, 4, dtype=dtype), ragged_mask(3, 5, "holes")
    labels = torch.randint(4, mask.shape)
    with torch.autocast("cpu", dtype=dtype):
        actual = crf(emissions, mask, labels), max_marginals(emissions, mask, *crf.constrained_scores())
    expected = crf(emissions.float(), mask, labels), max_marginals(emissions.float(), mask, *crf.constrained_scores())
    for value, expected_value in zip(actual, expected, strict=True):
        assert value.dtype == torch.float32
        assert torch.equal(value, expected_value)


@pytest.mark.parametrize("mask_kind", MASK_KINDS)
def test_uniform_layout_equals_sorted_layout(mask_kind, monkeypatch):
    crf = LinearChainCRF(5, IOB2).double()
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    emissions, mask = torch.randn(5, 6, 5, dtype=torch.float64, requires_grad=True), ragged_mask(5, 6, mask_kind)
    labels = torch.full(mask.shape, -100).where(~mask, 0)

    def compute():
        loss = crf(emissions, mask, labels)
        gradients = torch.autograd.grad(loss.sum(), [emissions, *crf.parameters()])
        scores = emissions, mask, *crf.constrained_scores()
        return [loss, *gradients, marginals(*scores), max_marginals(*scores)]

    expected = compute()
    for file in ("lattice", "viterbi"):
        monkeypatch.setattr(f"hf_maskattn.model.{file}.is_host_readable", lambda tensor: False)  # as on an accelerator
    for actual, expected_value in zip(compute(), expected, strict=True):
        assert_near(actual, expected_value, GRADIENT_BY_DTYPE[torch.float64])


@pytest.mark.parametrize("batch_size", [1, 3, 40])
@pytest.mark.parametrize("num_types", [0, 1, 30])
def test_max_marginals_of_a_cpu_are_those_of_an_accelerator(batch_size, num_types, monkeypatch):
    labels = ["O", *(f"{prefix}-{number}" for number in range(num_types) for prefix in "IB")]
    crf = LinearChainCRF(len(labels), labels)
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    scores = torch.randn(batch_size, 7, len(labels)), ragged_mask(batch_size, 7, "holes"), *crf.constrained_scores()
    expected = max_marginals(*scores)
    for file in ("lattice", "viterbi"):
        monkeypatch.setattr(f"hf_maskattn.model.{file}.is_host_readable", lambda tensor: False)
    assert torch.equal(max_marginals(*scores), expected)


def test_max_marginals_follow_trained_transitions():
    crf = LinearChainCRF(5, IOB2)
    emissions, mask = torch.randn(3, 4, 5, requires_grad=True), torch.ones(3, 4, dtype=torch.bool)
    with torch.inference_mode():
        untrained = crf.max_marginals(emissions, mask)
    assert torch.equal(crf.max_marginals(emissions, mask), untrained)
    with torch.no_grad():
        crf.transitions += 1
    assert_near(crf.max_marginals(emissions, mask), untrained + 3, OUTPUT_BY_DTYPE[torch.float32])


def test_max_marginals_without_ties_search_no_path(monkeypatch):
    crf = LinearChainCRF(5, IOB2)
    emissions, mask = torch.randn(9, 6, 5), ragged_mask(9, 6, "holes")
    monkeypatch.setattr("hf_maskattn.model.viterbi._best_path", None)
    crf.max_marginals(emissions, mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1, 1e5])
@pytest.mark.parametrize("num_types", [0, 9])  # all transitions are allowed, or not
@pytest.mark.parametrize("dim", [0, 1, None])  # along which transitions differ
def test_max_marginals_over_candidates_are_those_over_all_labels(dim, num_types, scale, dtype, monkeypatch):
    labels = ["O", *(f"{prefix}-{number}" for number in range(num_types) for prefix in "IB"), "B-9"]
    crf = LinearChainCRF(len(labels), labels).to(dtype)
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    if dim is not None:
        crf.transitions.data[:] = crf.transitions.data.amax(1 - dim, keepdim=True)
    emissions = 10 * scale * torch.randn(20, 9, len(labels), dtype=dtype)
    scores = emissions, ragged_mask(20, 9, "holes"), *crf.constrained_scores()
    monkeypatch.setattr("hf_maskattn.model.viterbi._VERY_FEW_SUMS", math.inf)
    expected = max_marginals(*scores)
    monkeypatch.setattr("hf_maskattn.model.viterbi._VERY_FEW_SUMS", 0)
    monkeypatch.setattr("hf_maskattn.model.viterbi._MaxPlus._max_over_sources", None)  # which compares all labels
    assert torch.equal(max_marginals(*scores), expected)


@pytest.mark.parametrize("value", [-INFINITY, math.nan])
@pytest.mark.parametrize("place", ["emissions", "transitions", "start", "end"])
@pytest.mark.parametrize("position", [0, 2, 7])  # of O, of I-PER and of the transition from B-PER to I-PER
def test_max_marginals_of_values_that_are_not_finite(position, place, value, monkeypatch):
    transitions, start, end = (score.detach() for score in LinearChainCRF(5, IOB2).constrained_scores())
    scores = {"emissions": torch.randn(5, 4, 5), "transitions": transitions, "start": start, "end": end}
    scores[place].view(-1)[position::25] = value
    mask = ragged_mask(5, 4, "holes")
    expected = max_marginals(mask=mask, **scores)
    monkeypatch.setattr("hf_maskattn.model.viterbi._VERY_FEW_SUMS", 0)
    torch.testing.assert_close(max_marginals(mask=mask, **scores), expected, rtol=0, atol=0, equal_nan=True)


def test_max_marginals_under_another_default_device():
    scores = LinearChainCRF(5, IOB2).constrained_scores()
    emissions, mask = torch.randn(2, 3, 5), torch.ones(2, 3, dtype=torch.bool)
    with torch.device("meta"):
        actual = max_marginals(emissions, mask, *(1 * score for score in scores))
    assert torch.equal(actual, max_marginals(emissions, mask, *scores))


def test_max_marginals_in_parts_are_the_same(monkeypatch):
    scores = LinearChainCRF(5, IOB2).constrained_scores()
    emissions, mask = torch.randn(70, 6, 5), ragged_mask(70, 6, "empty")
    expected = max_marginals(emissions, mask, *scores)
    for cached_sums in (1, 1000):  # one row at once, and about 12
        monkeypatch.setattr("hf_maskattn.model.viterbi._CACHED_SUMS", cached_sums)
        assert torch.equal(max_marginals(emissions, mask, *scores), expected)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (IOB2, True),
        (["B-X", "I-X"], True),
        (["O", "B-X"], True),
        (["NOUN", "VERB"], False),
        (["LABEL_0", "LABEL_1"], False),
        (["O", "I-X"], False),
        (["O", "B-X", "I-X", "E-X", "S-X"], False),
        (["_", "B-X", "I-X"], False),
    ],
)
def test_scheme_of_labels(labels, expected):
    assert follows_iob2(labels) == expected
    assert scheme_constraints(labels)[1].tolist() == [expected and label.startswith("I-") for label in labels]


def test_scheme_constraints_of_iob2():
    forbidden, forbidden_start = scheme_constraints(IOB2)
    allowed = {(i, j) for i, j in (~forbidden).nonzero().tolist()}
    assert allowed == {(i, j) for i in range(5) for j in range(5) if j not in (2, 4) or i in (j - 1, j)}
    assert forbidden_start.tolist() == [False, False, True, False, True]
