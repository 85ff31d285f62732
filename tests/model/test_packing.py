from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_maskattn.model.packing import (
    TimeChunk,
    build_packed_layout,
    pack_tokens,
    split_time_at_quantiles,
    split_time_cheaply,
    split_time_exactly,
    unpack_tokens,
)
from tests.masks import MASK_KINDS, ragged_mask


def build_layout(mask, directions=2, count=None):
    lengths = mask.sum(dim=1)
    longest_first = sorted(lengths.tolist(), reverse=True)
    if count is None:
        time_chunks = None
    elif count == 0:
        time_chunks = split_time_exactly(longest_first)
    else:
        time_chunks = split_time_at_quantiles(longest_first, count)
    return build_packed_layout(mask, lengths, directions, time_chunks, sum(longest_first))


def append_zero(packed):
    """Append the value for padding, 0."""
    return torch.nn.functional.pad(packed, (0, 0, 0, 1))


def test_pack_and_unpack_tokens_by_hand():
    mask = torch.tensor([[0, 1, 0, 1], [1, 1, 1, 0], [0, 0, 0, 0]]).bool()
    x = torch.tensor([[9, 1, 9, 2], [3, 4, 5, 9], [9, 9, 9, 9]])[..., None].float()
    layout = build_layout(mask, count=0)
    assert layout.time_chunks == ((2, 2), (1, 1))
    y = pack_tokens(x, layout)[:, :-1]
    # step by step, the longest row first: in the forward direction, then in the backward direction
    assert y[..., 0].tolist() == [[3, 1, 4, 2, 5], [5, 2, 4, 1, 3]]
    unpacked = unpack_tokens(append_zero(y), layout).tolist()
    assert unpacked == [[[0, 0], [1, 1], [0, 0], [2, 2]], [[3, 3], [4, 4], [5, 5], [0, 0]], [[0, 0]] * 4]
    one_chunk = pack_tokens(x, build_layout(mask))[0, :-1, 0].tolist()
    assert one_chunk == [1, 3, 0, 2, 4, 0, 0, 5, 0, 0, 0, 0]


@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(MASK_KINDS),
    count=st.sampled_from([None, 0, 1, 2, 5]),
    directions=st.sampled_from([1, 2]),
)
def test_unpack_inverts_pack(seed, kind, count, directions):
    torch.manual_seed(seed)
    mask = ragged_mask(4, 7, kind)
    layout = build_layout(mask, directions, count)
    x = torch.where(mask[..., None], torch.randn(4, 7, 3), torch.nan)
    back = unpack_tokens(append_zero(pack_tokens(x, layout)[:, :-1]), layout)
    assert torch.equal(back, x.nan_to_num(0.0).repeat(1, 1, directions))


@pytest.mark.parametrize("count", [None, 0, 2])
@pytest.mark.parametrize("kind", MASK_KINDS)
def test_gradients_do_not_read_padding(kind, count):
    mask = ragged_mask(3, 5, kind)
    layout = build_layout(mask, count=count)
    x = torch.randn(3, 5, 2, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, layout.token_indices.shape[1] - 1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: pack_tokens(x, layout)[:, :-1], x)
    assert torch.autograd.gradcheck(lambda y: unpack_tokens(append_zero(y), layout), y)
    (grad,) = torch.autograd.grad(
        unpack_tokens(append_zero(y), layout), y, torch.where(mask[..., None], 1.0, torch.nan).expand(3, 5, 4).double()
    )
    assert grad.isfinite().all()


LENGTHS = st.lists(st.integers(0, 60), min_size=1, max_size=70).map(lambda lengths: sorted(lengths, reverse=True)).filter(any)


def count_positions(time_chunks):
    return sum(chunk.steps * chunk.rows for chunk in time_chunks)


@given(lengths=LENGTHS, count=st.integers(1, 9), width=st.sampled_from([1, 16, 512]))
def test_time_chunks_cover_every_token(lengths, count, width):
    for time_chunks in (
        split_time_exactly(lengths),
        split_time_at_quantiles(lengths, count),
        split_time_cheaply(lengths, width),
    ):
        assert sum(chunk.steps for chunk in time_chunks) == lengths[0]
        start = 0
        for chunk in time_chunks:
            assert chunk.rows == sum(length > start for length in lengths)
            start += chunk.steps
        assert all(one.rows > other.rows for one, other in pairwise(time_chunks))
    assert len(split_time_at_quantiles(lengths, count)) <= count
    assert count_positions(split_time_exactly(lengths)) == sum(lengths)


@given(lengths=LENGTHS, width=st.sampled_from([1, 16, 128, 512]), count=st.integers(1, 9))
def test_cheap_split_costs_no_more_than_quantiles(lengths, width, count):
    def cost(time_chunks):
        return count_positions(time_chunks) + len(time_chunks) * (40 + 8000 / width)

    if 16 % count == 0:
        assert cost(split_time_cheaply(lengths, width)) <= cost(split_time_at_quantiles(lengths, count)) + 1e-6


def test_cheap_split_keeps_equal_lengths_and_little_work():
    assert split_time_cheaply([128] * 64, 256) == (TimeChunk(128, 64),)
    assert split_time_cheaply([8, 6, 5, 1], 64) == (TimeChunk(8, 4),)


def test_cheap_split_cuts_long_tail():
    assert split_time_cheaply([512, *[40] * 31], 128) == (TimeChunk(40, 32), TimeChunk(472, 1))
