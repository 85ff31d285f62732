"""When a progress bar is worth showing."""

from collections.abc import Iterator
from contextlib import contextmanager

import datasets

_SHOWN_FROM_ROWS = 50_000


@contextmanager
def bars_for_many_rows(rows: int) -> Iterator[None]:
    """Hide the progress bars of `datasets` while few rows are worked on.

    Args:
        rows: Number of rows; from 50,000 on, bars stay as they are.

    Yields:
        Nothing; the former setting is back when the block ends.
    """
    if rows >= _SHOWN_FROM_ROWS or datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
