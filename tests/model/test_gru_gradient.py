import pytest
import torch

from hf_maskattn.model import gru_gradient
from hf_maskattn.model.gru_gradient import gru_over_cells
from hf_maskattn.model.segments import Segment
from tests.tolerances import GRADIENT, OUTPUT

SEGMENTS = [(Segment(4, 3),), (Segment(2, 3), Segment(1, 2), Segment(3, 1)), (Segment(1, 1),), (Segment(1, 5), Segment(1, 2))]


def weights(directions=1, dtype=torch.float64, width=3, inputs=2):
    shapes = [(3 * width, inputs), (3 * width, width), (3 * width,), (3 * width,)]
    return [torch.randn(shape, dtype=dtype) for _ in range(directions) for shape in shapes]


def by_direction(flat):
    return [flat[start : start + 4] for start in range(0, len(flat), 4)]


def some_inputs(segments, directions):
    x = torch.randn(directions, sum(s.steps * s.rows for s in segments), 2, dtype=torch.float64)
    first = torch.randn(directions, segments[0].rows + 1, 3, dtype=torch.float64)  # one row has no step
    return [tensor.requires_grad_() for tensor in (x, first, *weights(directions))]


def run(segments):
    return lambda x, first, *weights: torch.stack([*gru_over_cells(x, by_direction(weights), segments, first)])


@pytest.fixture(params=["small", "large", "wide"], autouse=True)
def steps(request, monkeypatch):
    """Steps that torch's kernel takes, steps that are taken one by one, and such in directions one after the other."""
    if request.param != "small":
        monkeypatch.setattr(gru_gradient, "_SMALL_STEP", 0)
    if request.param == "wide":
        monkeypatch.setattr(gru_gradient, "_WIDE", 0)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("segments", SEGMENTS)
def test_gradcheck(segments, directions):
    assert torch.autograd.gradcheck(run(segments), some_inputs(segments, directions))


def test_states_and_gradients_are_those_of_torch():
    rnns = [torch.nn.GRU(2, 3) for _ in range(2)]
    flat = [parameter for rnn in rnns for parameter in rnn.parameters()]
    x = torch.randn(2, 4, 3, 2)
    first = torch.randn(2, 3, 3)
    states = run((Segment(4, 3),))(x.flatten(1, 2), first, *flat).view(2, 4, 3, 3)
    expected = torch.stack([rnn(own, state[None])[0] for rnn, own, state in zip(rnns, x, first, strict=True)])
    torch.testing.assert_close(states, expected, atol=OUTPUT, rtol=0)
    direction = torch.randn_like(states)
    for found, right in zip(
        torch.autograd.grad((states * direction).sum(), flat),
        torch.autograd.grad((expected * direction).sum(), flat),
        strict=True,
    ):
        torch.testing.assert_close(found, right, atol=GRADIENT, rtol=0)


@pytest.mark.parametrize("directions", [1, 2])
def test_without_gradient_the_states_are_the_same(directions):
    inputs = some_inputs(SEGMENTS[1], directions)
    with torch.no_grad():
        states = run(SEGMENTS[1])(*inputs)
    torch.testing.assert_close(states, run(SEGMENTS[1])(*inputs))


@pytest.mark.parametrize("directions", [1, 2])
def test_the_gradient_can_be_differentiated_again(directions):
    assert torch.autograd.gradgradcheck(run(SEGMENTS[1]), some_inputs(SEGMENTS[1], directions))


@pytest.mark.parametrize("frozen", [[0], [1, 3, 5], [*range(2, 6)]])
def test_the_gradient_can_be_differentiated_again_where_some_inputs_are_frozen(frozen):
    inputs = some_inputs(SEGMENTS[1], 2)
    for index in frozen:
        inputs[index].requires_grad_(False)
    assert torch.autograd.gradgradcheck(run(SEGMENTS[1]), inputs)


def test_the_gradient_that_comes_is_left_as_it_is():
    inputs = some_inputs(SEGMENTS[1], 2)
    states = run(SEGMENTS[1])(*inputs)
    given = torch.randn_like(states)
    kept = given.clone()
    torch.autograd.grad(states, inputs, given, retain_graph=True)
    torch.autograd.grad(states, inputs, given)
    assert torch.equal(given, kept)


def test_wide_directions_go_one_after_the_other(monkeypatch):
    inputs = some_inputs(SEGMENTS[1], 2)
    seen = []
    monkeypatch.setattr(
        gru_gradient,
        "_side_by_side",
        lambda weights, real=gru_gradient._side_by_side: seen.append(len(weights)) or real(weights),
    )
    run(SEGMENTS[1])(*inputs)
    assert seen == ([4, 4] if gru_gradient._WIDE == 0 else [8])
