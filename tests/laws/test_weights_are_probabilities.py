"""Law: attention weights are >= 0, sum to one over the real tokens and are exactly 0 at pads, in training too."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from hf_maskattn.model.attention import AdditiveAttention
from hf_maskattn.model.softmax import masked_softmax, segment_softmax
from tests.masks import MASK_KINDS, ragged_mask

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 4e-3}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(MASK_KINDS),
    time=st.integers(1, 40),
    heads=st.sampled_from([1, 2, 4]),
    dropout=st.sampled_from([0.0, 0.3, 0.99, 1.0]),
    scale=st.sampled_from([1.0, 1e2, 1e4]),
)
def test_weights(dtype, implementation, seed, kind, time, heads, dropout, scale):
    torch.manual_seed(seed)
    attention = AdditiveAttention(
        query_size=8, memory_size=8, attention_size=8, num_heads=heads, dropout=dropout, implementation=implementation
    ).to(dtype)
    torch.nn.init.normal_(attention.energy, std=scale)
    mask = ragged_mask(3, time, kind)
    context, weights = attention.train()(torch.randn(3, 2, 8, dtype=dtype), torch.randn(3, time, 8, dtype=dtype), mask)
    assert weights.shape == (3, heads, 2, time)
    assert (weights >= 0).all()
    assert not weights.masked_select(~mask[:, None, None]).any()
    sums = weights.double().sum(dim=-1)
    expected = mask.any(dim=1).double()[:, None, None].expand_as(sums)
    torch.testing.assert_close(sums, expected, atol=TOLERANCE[dtype], rtol=0)
    assert context.isfinite().all()


@given(seed=st.integers(0, 2**31), shift=st.floats(-1e4, 1e4), kind=st.sampled_from(MASK_KINDS), time=st.integers(1, 20))
def test_shifting_all_scores_changes_nothing(seed, shift, kind, time):
    torch.manual_seed(seed)
    scores, mask = torch.randn(4, time, dtype=torch.float64), ragged_mask(4, time, kind)
    weights = masked_softmax(scores, mask)
    torch.testing.assert_close(masked_softmax(scores + shift, mask), weights, atol=1e-11, rtol=0)
    rows = mask.nonzero()[:, 0]
    torch.testing.assert_close(segment_softmax(scores[mask] + shift, rows, 4), weights[mask], atol=1e-11, rtol=0)
