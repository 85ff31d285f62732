import pytest
import torch

from hf_maskattn.model.softmax import drop_tokens, masked_softmax, segment_softmax
from tests.tolerances import GRADIENT_BY_DTYPE, OUTPUT


def test_masked_softmax_by_hand():
    scores = torch.tensor([[1.0, 2, 3, 4], [5, 5, 5, 5], [1, 1, 1, 1]])
    mask = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]).bool()
    expected = torch.tensor([[0.26894142, 0.73105858, 0, 0], [0, 0.5, 0, 0.5], [0, 0, 0, 0]])
    torch.testing.assert_close(masked_softmax(scores, mask), expected, atol=OUTPUT, rtol=0)


def test_no_mask_means_that_all_are_real():
    scores = torch.randn(3, 4, dtype=torch.float16)
    assert torch.equal(masked_softmax(scores, None), masked_softmax(scores, torch.ones(3, 4, dtype=torch.bool)))


@pytest.mark.parametrize("shift", [-1e4, -30.0, 30.0, 1e4])
def test_shifting_all_scores_changes_nothing(shift):
    scores = torch.randn(5, 9, dtype=torch.float64)
    mask = torch.rand(5, 9) < 0.5
    segments = mask.nonzero()[:, 0]
    torch.testing.assert_close(
        masked_softmax(scores + shift, mask), masked_softmax(scores, mask), atol=GRADIENT_BY_DTYPE[torch.float64], rtol=0
    )
    shifted, plain = (segment_softmax(s[mask], segments, 5) for s in (scores + shift, scores))
    torch.testing.assert_close(shifted, plain, atol=GRADIENT_BY_DTYPE[torch.float64], rtol=0)


def test_segment_softmax_is_the_masked_softmax_of_the_flat_list():
    scores, mask = torch.randn(4, 7), torch.rand(4, 7) < 0.6
    mask[2] = False
    flat = segment_softmax(scores[mask], mask.nonzero()[:, 0], 4)
    torch.testing.assert_close(flat, masked_softmax(scores, mask)[mask], atol=OUTPUT, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_normalized_in_single(dtype):
    scores = torch.full((1, 3000), 7.0, dtype=dtype)
    weights = masked_softmax(scores, torch.ones(1, 3000, dtype=torch.bool))
    assert weights.dtype == dtype
    assert weights[0, 0] == torch.tensor(1 / 3000).to(dtype)


def test_no_gradient_reaches_a_pad_or_an_empty_row():
    scores = torch.randn(3, 4, requires_grad=True)
    mask = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 0, 0]]).bool()
    (masked_softmax(scores, mask) * torch.randn(3, 4)).sum().backward()
    assert not scores.grad[~mask].any()
    assert scores.grad.isfinite().all()


def test_dropping_keeps_a_token_where_there_is_one():
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]]).bool()
    assert torch.equal(drop_tokens(mask, 1.0), mask)
    kept = drop_tokens(torch.ones(200, 50, dtype=torch.bool), 0.3)
    assert 0.65 < kept.float().mean() < 0.75
