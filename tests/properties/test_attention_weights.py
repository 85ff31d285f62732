"""Attention weights are >= 0, sum to one over the tokens and are exactly 0 at padding, in training too."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from hf_maskattn.model.attention import AdditiveAttention
from hf_maskattn.model.masking import masked_softmax, segment_softmax
from tests.masks import MASK_KINDS, ragged_mask
from tests.tolerances import WEIGHT_SUM_BY_DTYPE


@pytest.mark.parametrize("dtype", WEIGHT_SUM_BY_DTYPE, ids=str)
@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(MASK_KINDS),
    time=st.integers(1, 40),
    heads=st.sampled_from([1, 2, 4]),
    dropout=st.sampled_from([0.0, 0.3, 0.99, 1.0]),
    scale=st.sampled_from([1.0, 1e2, 1e4]),
)
def test_weights_are_probabilities(dtype, implementation, seed, kind, time, heads, dropout, scale):
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
    torch.testing.assert_close(sums, expected, atol=WEIGHT_SUM_BY_DTYPE[dtype], rtol=0)
    assert context.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@given(
    seed=st.integers(0, 2**31), shift=st.integers(-640_000, 640_000), kind=st.sampled_from(MASK_KINDS), time=st.integers(1, 20)
)
def test_softmax_is_shift_invariant_bit_for_bit(dtype, seed, shift, kind, time):
    torch.manual_seed(seed)
    # Multiples of 1/64 up to 1e4 are exact in 32 bits, so that the shifted scores themselves have no rounding error.
    scores = torch.randint(-256, 257, (4, time)).to(dtype) / 64
    shifted = scores + shift / 64
    mask = ragged_mask(4, time, kind)
    assert torch.equal(masked_softmax(shifted, mask), masked_softmax(scores, mask))
    rows = mask.nonzero()[:, 0]
    assert torch.equal(segment_softmax(shifted[mask], rows, 4), segment_softmax(scores[mask], rows, 4))
