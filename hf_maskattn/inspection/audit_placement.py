"""Where the real tokens of each row stand among pads."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

EXTRA_PADS = 5
"""Columns that a check adds: more than the reach of the usual short convolutions."""
_PADS_BEHIND = 2


@dataclass(frozen=True)
class Placement:
    """A way of padding rows.

    Attributes:
        columns: For each row, `[n]`, the column of each of its tokens, ascending.
        width: Number of columns.
    """

    columns: tuple[torch.Tensor, ...]
    width: int

    @property
    def mask(self) -> torch.Tensor:
        """`[B, width]`, bool, True where a token is real."""
        mask = torch.zeros(len(self.columns), self.width, dtype=torch.bool)
        for row, columns in zip(mask, self.columns, strict=True):
            row[columns] = True
        return mask

    def fill(self, values: Sequence[torch.Tensor], padding: torch.Tensor) -> torch.Tensor:
        """Lay out the values of each row's tokens over `padding`, `[B, width]`."""
        laid_out = padding.clone()
        for row, columns, row_values in zip(laid_out, self.columns, values, strict=True):
            row[columns] = row_values.to(row.dtype)
        return laid_out


def padded_right(lengths: Sequence[int], extra: int = 0) -> Placement:
    """Put pads behind the tokens of each row, `extra` of them behind those of the longest."""
    return Placement(tuple(torch.arange(length) for length in lengths), max(lengths) + extra)


def padded_left(lengths: Sequence[int], extra: int = 0) -> Placement:
    """Put pads before the tokens of each row, `extra` of them before those of the longest."""
    width = max(lengths) + extra
    return Placement(tuple(torch.arange(width - length, width) for length in lengths), width)


def scattered(lengths: Sequence[int]) -> Placement:
    """Spread the tokens of each row evenly from the first column on, with pads between and behind them."""
    width = max(lengths) + EXTRA_PADS
    last = width - 1 - _PADS_BEHIND
    return Placement(tuple(torch.arange(n) * last // max(n - 1, 1) for n in lengths), width)
