import pytest
import torch

from hf_maskattn.model import recurrent_kernel
from hf_maskattn.model.recurrence import MaskedRecurrence
from tests.masks import MASK_KINDS, ragged_mask
from tests.tolerances import GRADIENT


@pytest.fixture
def calls(monkeypatch):
    """Shapes of the inputs of every call of a recurrent kernel."""
    seen = []
    for name, kernel in dict(recurrent_kernel.KERNELS).items():

        def spy(x, *args, kernel=kernel):
            seen.append(tuple(x.shape))
            return kernel(x, *args)

        monkeypatch.setitem(recurrent_kernel.KERNELS, name, spy)
    return seen


def build(**changes):
    return MaskedRecurrence(**{"input_size": 3, "hidden_size": 8, **changes})


def test_the_chosen_segments_are_run(calls):
    mask = torch.arange(12) < torch.tensor([[12], [5], [5], [2]])
    x = torch.randn(4, 12, 3)
    build(bidirectional=False)(x, mask, num_segments=4)
    assert calls == [(2, 4, 3), (3, 3, 3), (7, 1, 3)]
    calls.clear()
    build()(x, mask, num_segments=2)
    assert calls == [(5, 4, 3), (7, 1, 3)] * 2
    calls.clear()
    build(bidirectional=False)(x, mask)
    assert calls == [(12, 4, 3)], "a cut costs more than a few small cells"


def test_long_tails_are_cut_without_being_told(calls):
    mask = torch.arange(400) < torch.tensor([[400], *[[9]] * 15])
    build(bidirectional=False, hidden_size=64)(torch.randn(16, 400, 3), mask)
    assert calls == [(9, 16, 3), (391, 1, 3)]


def test_a_batch_without_pads_is_one_call_of_both_directions(calls):
    build()(torch.randn(4, 12, 3), torch.ones(4, 12, dtype=torch.bool))
    assert calls == [(4, 12, 3)]


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("num_segments", [1, 2, 5, None])
@pytest.mark.parametrize("kind", MASK_KINDS)
@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
def test_the_number_of_segments_changes_nothing(rnn_type, kind, num_segments, gradient):
    recurrence = build(rnn_type=rnn_type, num_layers=2)
    mask = ragged_mask(6, 11, kind)
    results = []
    for number in (1, num_segments):
        torch.manual_seed(1)
        x = torch.randn(6, 11, 3, requires_grad=True)
        recurrence.zero_grad()
        with torch.set_grad_enabled(gradient):
            states = recurrence(x, mask, number)
        if gradient:
            sum((layer * torch.randn_like(layer)).sum() for layer in states).backward()
        results.append([*states, *([x.grad, *(p.grad.clone() for p in recurrence.parameters())] if gradient else [])])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(other, one, atol=GRADIENT, rtol=0)


@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
def test_every_weight_takes_part_in_an_empty_batch(rnn_type):
    recurrence = build(rnn_type=rnn_type)
    recurrence(torch.full((2, 3, 3), torch.nan), torch.zeros(2, 3, dtype=torch.bool))[-1].sum().backward()
    assert all(not parameter.grad.any() for parameter in recurrence.parameters())


def test_gradients_are_there_in_eval_mode():
    recurrence = build().eval()
    recurrence(torch.randn(2, 3, 3), torch.ones(2, 3, dtype=torch.bool))[-1].sum().backward()
    assert all(parameter.grad.any() for parameter in recurrence.parameters())


@pytest.mark.parametrize("mask", [[[1, 1, 1], [1, 0, 0]], [[1, 1, 1], [1, 1, 1]]])
def test_a_bad_number_of_segments_is_named(mask):
    with pytest.raises(ValueError, match="num_segments=0 must be at least 1"):
        build()(torch.randn(2, 3, 3), torch.tensor(mask).bool(), num_segments=0)


@pytest.mark.parametrize("mask", [[[1, 1, 1], [1, 0, 0]], [[1, 1, 1], [1, 1, 1]]], ids=["padded", "full"])
def test_the_dtype_of_autocast_does_not_depend_on_pads(monkeypatch, mask):
    monkeypatch.setattr(recurrent_kernel, "_cpu_has_kernel", lambda dtype: True)
    monkeypatch.setitem(recurrent_kernel.KERNELS, "lstm", lambda *args: tuple(t.bfloat16() for t in torch.lstm(*args)))
    with torch.autocast("cpu", enabled=False):
        weights = [[*torch.nn.LSTM(3, 4).parameters()]]
        cells = recurrent_kernel.arrange("lstm", torch.tensor(mask).bool(), 1, 4)
        assert recurrent_kernel.run_over_cells("lstm", torch.randn(2, 3, 3), weights, cells).dtype == torch.bfloat16
