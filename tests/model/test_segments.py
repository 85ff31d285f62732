from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hf_maskattn.model.segments import Segment, cheapest_segments, exact_segments, quantile_segments

LENGTHS = st.lists(st.integers(0, 60), min_size=1, max_size=70).map(lambda lengths: sorted(lengths, reverse=True)).filter(any)


def cells(segments):
    return sum(segment.steps * segment.rows for segment in segments)


@given(lengths=LENGTHS, count=st.integers(1, 9), width=st.sampled_from([1, 16, 512]))
def test_segments_cover_every_token_and_rows_only_end(lengths, count, width):
    for segments in (exact_segments(lengths), quantile_segments(lengths, count), cheapest_segments(lengths, width)):
        assert sum(segment.steps for segment in segments) == lengths[0]
        start = 0
        for segment in segments:
            assert segment.rows == sum(length > start for length in lengths)
            start += segment.steps
        assert all(one.rows > other.rows for one, other in pairwise(segments))
    assert len(quantile_segments(lengths, count)) <= count
    assert cells(exact_segments(lengths)) == sum(lengths)


@given(lengths=LENGTHS, width=st.sampled_from([1, 16, 128, 512]), count=st.integers(1, 9))
def test_the_cheapest_cuts_cost_no_more_than_any_by_quantiles(lengths, width, count):
    def cost(segments):
        return cells(segments) + len(segments) * (40 + 8000 / width)

    if 16 % count == 0:
        assert cost(cheapest_segments(lengths, width)) <= cost(quantile_segments(lengths, count)) + 1e-6


def test_equal_lengths_and_little_work_are_not_cut():
    assert cheapest_segments([128] * 64, 256) == (Segment(128, 64),)
    assert cheapest_segments([8, 6, 5, 1], 64) == (Segment(8, 4),)


def test_long_tails_are_cut():
    assert cheapest_segments([512, *[40] * 31], 128) == (Segment(40, 32), Segment(472, 1))
