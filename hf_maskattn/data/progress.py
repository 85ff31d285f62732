"""When a progress bar is worth showing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import datasets

_SHOWN_FROM_ROWS = 50_000
_SHOWN_FROM_BYTES = 50_000_000


@contextmanager
def bars_for_many_rows(rows: int) -> Iterator[None]:
    """Hide the progress bars of `datasets` while few rows are worked on, or where nobody looks.

    Args:
        rows: Number of rows; from 50,000 on, bars stay as they are on a terminal.

    Yields:
        Nothing; the former setting is back when the block ends.
    """
    with _bars(rows >= _SHOWN_FROM_ROWS):
        yield


@contextmanager
def bars_for_many_bytes(size: int | None) -> Iterator[None]:
    """Hide the progress bars of `datasets` while few bytes are read, or where nobody looks.

    Args:
        size: Number of bytes; from 50 MB on, bars stay as they are on a terminal. `None` is not known, and may be many.

    Yields:
        Nothing; the former setting is back when the block ends.
    """
    with _bars(size is None or size >= _SHOWN_FROM_BYTES):
        yield


@contextmanager
def _bars(is_long: bool) -> Iterator[None]:
    if (is_long and sys.stderr.isatty()) or datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
