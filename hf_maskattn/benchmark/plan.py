"""What is going to be measured: tables whose cases have not run yet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from hf_maskattn.benchmark.report import Ratio, Row


@dataclass(frozen=True)
class Setting:
    """What all tables share.

    Attributes:
        device: Where everything runs.
        lengths: Tokens of each text of a real corpus.
        quick: Whether to measure fewer cases.
        seconds: About how long to measure each case.
    """

    device: torch.device
    lengths: Sequence[int]
    quick: bool
    seconds: float


@dataclass(frozen=True)
class Plan:
    """A table to be.

    Attributes:
        title: See `Table`, as `caption`, `ratios` and `unit`.
        caption: See there.
        cases: Measures the row of each case, by its name.
        ratios: See there.
        unit: See there.
    """

    title: str
    caption: str
    cases: Mapping[str, Callable[[], Row]]
    ratios: Sequence[Ratio] = ()
    unit: str = "ms"
