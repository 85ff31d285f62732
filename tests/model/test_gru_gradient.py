import pytest
import torch

from hf_maskattn.model import gru_gradient
from hf_maskattn.model.gru_gradient import gru_over_cells
from hf_maskattn.model.segments import Segment

SEGMENTS = [(Segment(4, 3),), (Segment(2, 3), Segment(1, 2), Segment(3, 1)), (Segment(1, 1),), (Segment(1, 5), Segment(1, 2))]


def weights(dtype=torch.float64, width=3, inputs=2):
    return [torch.randn(3 * width, n, dtype=dtype) for n in (inputs, width)] + [
        torch.randn(3 * width, dtype=dtype) for _ in range(2)
    ]


@pytest.fixture(params=["small", "large"], autouse=True)
def steps(request, monkeypatch):
    """Steps that torch's kernel takes, and steps that are taken one by one."""
    if request.param == "large":
        monkeypatch.setattr(gru_gradient, "_SMALL_STEP", 0)


@pytest.mark.parametrize("segments", SEGMENTS)
def test_gradcheck(segments):
    x = torch.randn(sum(s.steps * s.rows for s in segments), 2, dtype=torch.float64)
    first = torch.randn(segments[0].rows + 1, 3, dtype=torch.float64)  # one row has no step
    inputs = [tensor.clone().requires_grad_() for tensor in (x, first, *weights())]
    assert torch.autograd.gradcheck(lambda x, first, *weights: gru_over_cells(x, weights, segments, first), inputs)


def test_states_and_gradients_are_those_of_torch():
    rnn = torch.nn.GRU(2, 3)
    x = torch.randn(4, 3, 2)
    first = torch.randn(3, 3)
    states = gru_over_cells(x.flatten(0, 1), [*rnn.parameters()], (Segment(4, 3),), first).view(4, 3, 3)
    torch.testing.assert_close(states, rnn(x, first[None])[0], atol=1e-7, rtol=0)
    direction = torch.randn_like(states)
    for found, expected in zip(
        torch.autograd.grad((states * direction).sum(), [*rnn.parameters()]),
        torch.autograd.grad((rnn(x, first[None])[0] * direction).sum(), [*rnn.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_the_gradient_can_be_differentiated_again():
    segments = SEGMENTS[1]
    x = torch.randn(sum(s.steps * s.rows for s in segments), 2, dtype=torch.float64, requires_grad=True)
    first = torch.randn(segments[0].rows, 3, dtype=torch.float64, requires_grad=True)
    inputs = [x, first, *(weight.requires_grad_() for weight in weights())]
    assert torch.autograd.gradgradcheck(lambda x, first, *weights: gru_over_cells(x, weights, segments, first), inputs)
