"""Into how many parts time is cut, so that a kernel that knows no lengths computes little for rows that have ended."""

from bisect import bisect_left
from collections.abc import Sequence
from operator import neg
from typing import NamedTuple

_PRICE_OF_CALL = 40
_PRICE_OF_CALL_AT_WIDTH_ONE = 8000
_CANDIDATES = 16


class Segment(NamedTuple):
    """A stretch of time in which the same rows run.

    Attributes:
        steps: Number of time steps.
        rows: Number of rows, the longest ones of the batch.
    """

    steps: int
    rows: int


def exact_segments(lengths: Sequence[int]) -> tuple[Segment, ...]:
    """Cut time wherever a row ends, for a kernel to which a cut costs nothing.

    Args:
        lengths: Real tokens of each row, longest first, the first at least 1.

    Returns:
        Segments from the first step to the last of the longest row; those behind the first have fewer rows each.
    """
    return _segments(sorted({length for length in lengths if length}), lengths)


def quantile_segments(lengths: Sequence[int], count: int) -> tuple[Segment, ...]:
    """Cut time at most `count - 1` times, where about equal numbers of rows have ended; otherwise as `exact_segments`."""
    return _segments(_quantiles(lengths, count), lengths)


def cheapest_segments(lengths: Sequence[int], width: int) -> tuple[Segment, ...]:
    """Cut time where it pays; otherwise as `exact_segments`.

    A segment costs a cell for each of its steps and rows, ended or not, and the price of one more call of the kernel, in
    cells: `40 + 8000 / width`, fitted to the times of LSTMs of 32 to 512 units on two CPU cores. Out of 16 quantiles of
    the lengths the cheapest cuts are found by dynamic programming.

    Args:
        lengths: As in `exact_segments`.
        width: Number of units of the kernel, with which the price of a cell grows.
    """
    price_of_call = _PRICE_OF_CALL + _PRICE_OF_CALL_AT_WIDTH_ONE / width
    if lengths[0] * _alive(lengths, 0) - sum(lengths) <= price_of_call:
        return _segments([lengths[0]], lengths)
    ends = _quantiles(lengths, _CANDIDATES)
    rows = [_alive(lengths, start) for start in (0, *ends)]
    best: list[tuple[float, list[int]]] = [(0.0, [])]  # up to each candidate: the cost and the ends of segments
    for end in ends:
        best.append(
            min(
                (cost + (end - (kept[-1] if kept else 0)) * alive + price_of_call, [*kept, end])
                for alive, (cost, kept) in zip(rows, best, strict=False)
            )
        )
    return _segments(best[-1][1], lengths)


def _segments(ends: Sequence[int], lengths: Sequence[int]) -> tuple[Segment, ...]:
    starts = [0, *ends[:-1]]
    return tuple(Segment(end - start, _alive(lengths, start)) for start, end in zip(starts, ends, strict=True))


def _alive(lengths: Sequence[int], step: int) -> int:
    """Count the rows that are longer than `step`."""
    return bisect_left(lengths, -step, key=neg)


def _quantiles(lengths: Sequence[int], count: int) -> list[int]:
    """Pick the lengths of `count` rows at equal distances, the longest among them: ascending, without repetition."""
    return sorted({lengths[index * len(lengths) // count] for index in range(count)} - {0})
