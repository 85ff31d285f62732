import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from hf_maskattn.model.layout import bring_back, bring_to_front, front_layout, reverse
from tests.masks import MASK_KINDS, ragged_mask


def test_by_hand():
    mask = torch.tensor([[0, 1, 0, 1], [1, 1, 1, 0], [0, 0, 0, 0]]).bool()
    x = torch.tensor([[9.0, 1, 9, 2], [3, 4, 5, 9], [9, 9, 9, 9]])[..., None]
    layout = front_layout(mask)
    front = bring_to_front(x, layout)
    assert front[..., 0].tolist() == [[1, 2, 0], [3, 4, 5], [0, 0, 0]]
    assert reverse(front, layout)[..., 0].tolist() == [[2, 1, 0], [5, 4, 3], [0, 0, 0]]
    assert bring_back(front, layout)[..., 0].tolist() == [[0, 1, 0, 2], [3, 4, 5, 0], [0, 0, 0, 0]]


@given(seed=st.integers(0, 2**31), kind=st.sampled_from(MASK_KINDS), time=st.integers(1, 12))
def test_rearranging_is_inverted_and_reads_no_pad(seed, kind, time):
    torch.manual_seed(seed)
    mask = ragged_mask(3, time, kind)
    layout = front_layout(mask)
    x = torch.randn(3, time, 2).masked_fill(~mask[..., None], torch.nan)
    clean = x.masked_fill(~mask[..., None], 0)
    front = bring_to_front(x, layout)
    assert torch.equal(bring_back(front, layout), clean)
    assert torch.equal(reverse(reverse(front, layout), layout), front)
    for row in range(3):
        assert torch.equal(front[row, : mask[row].sum()], x[row, mask[row]])


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_gradients_are_those_of_the_function(kind):
    mask = ragged_mask(3, 5, kind)
    layout = front_layout(mask)
    x = torch.randn(3, 5, 2, dtype=torch.float64, requires_grad=True)
    front = bring_to_front(x, layout).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: bring_to_front(t, layout), x)
    assert torch.autograd.gradcheck(lambda t: bring_back(t, layout), front)
    assert torch.autograd.gradcheck(lambda t: reverse(t, layout), front)
    assert torch.autograd.gradgradcheck(lambda t: reverse(t, layout).square(), front)


def test_on_a_cpu_the_layout_ends_with_the_longest_row():
    mask = torch.zeros(2, 512, dtype=torch.bool)
    mask[0, 500:] = True
    assert front_layout(mask).front_mask.shape == (2, 12)


def test_where_the_host_may_not_read_the_layout_keeps_all_columns(monkeypatch):
    mask = ragged_mask(4, 9, "right")
    x = torch.randn(4, 9, 3)
    expected = bring_back(reverse(bring_to_front(x, front_layout(mask)), front_layout(mask)), front_layout(mask))
    monkeypatch.setattr("hf_maskattn.model.layout.host_can_read", lambda tensor: False)
    layout = front_layout(mask)
    assert layout.source is not None
    assert layout.front_mask.shape == (4, 9)
    assert torch.equal(bring_back(reverse(bring_to_front(x, layout), layout), layout), expected)
