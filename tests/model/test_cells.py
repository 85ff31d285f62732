import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_maskattn.model.cells import cell_layout, from_cells, to_cells
from hf_maskattn.model.segments import exact_segments, quantile_segments
from tests.masks import MASK_KINDS, ragged_mask


def layout(mask, directions=2, count=None):
    lengths = mask.sum(dim=1)
    longest_first = sorted(lengths.tolist(), reverse=True)
    segments = {None: lambda: None, 0: lambda: exact_segments(longest_first)}.get(
        count, lambda: quantile_segments(longest_first, count)
    )()
    return cell_layout(mask, lengths, directions, segments, sum(longest_first))


def with_pad(y):
    """What is computed in cells, and zeros for the pads."""
    return torch.nn.functional.pad(y, (0, 0, 0, 1))


def test_by_hand():
    mask = torch.tensor([[0, 1, 0, 1], [1, 1, 1, 0], [0, 0, 0, 0]]).bool()
    x = torch.tensor([[9, 1, 9, 2], [3, 4, 5, 9], [9, 9, 9, 9]])[..., None].float()
    cells = layout(mask, count=0)
    assert cells.segments == ((2, 2), (1, 1))
    y = to_cells(x, cells)[:, :-1]
    # time by time, the longest row first: once from the front, once from the end
    assert y[..., 0].tolist() == [[3, 1, 4, 2, 5], [5, 2, 4, 1, 3]]
    assert from_cells(with_pad(y), cells).tolist() == [
        [[0, 0], [1, 1], [0, 0], [2, 2]],
        [[3, 3], [4, 4], [5, 5], [0, 0]],
        [[0, 0]] * 4,
    ]
    one_segment = to_cells(x, layout(mask))[0, :-1, 0].tolist()
    assert one_segment == [1, 3, 0, 2, 4, 0, 0, 5, 0, 0, 0, 0]


@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(MASK_KINDS),
    count=st.sampled_from([None, 0, 1, 2, 5]),
    directions=st.sampled_from([1, 2]),
)
def test_there_and_back(seed, kind, count, directions):
    torch.manual_seed(seed)
    mask = ragged_mask(4, 7, kind)
    cells = layout(mask, directions, count)
    x = torch.where(mask[..., None], torch.randn(4, 7, 3), torch.nan)
    back = from_cells(with_pad(to_cells(x, cells)[:, :-1]), cells)
    assert torch.equal(back, x.nan_to_num(0.0).repeat(1, 1, directions))


@pytest.mark.parametrize("count", [None, 0, 2])
@pytest.mark.parametrize("kind", MASK_KINDS)
def test_gradients_are_right_and_read_no_pad(kind, count):
    mask = ragged_mask(3, 5, kind)
    cells = layout(mask, count=count)
    x = torch.randn(3, 5, 2, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, cells.source.shape[1] - 1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: to_cells(x, cells)[:, :-1], x)
    assert torch.autograd.gradcheck(lambda y: from_cells(with_pad(y), cells), y)
    (grad,) = torch.autograd.grad(
        from_cells(with_pad(y), cells), y, torch.where(mask[..., None], 1.0, torch.nan).expand(3, 5, 4).double()
    )
    assert grad.isfinite().all()
