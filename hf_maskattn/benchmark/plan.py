"""The settings of a benchmark, and the tables that it plans before anything is measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from hf_maskattn.benchmark.report import Ratio, Row


@dataclass(frozen=True)
class Setting:
    """The settings that all tables use.

    Attributes:
        device: The device that everything runs on.
        lengths: Number of tokens of each text of a corpus.
        quick: Whether to measure fewer cases.
        seconds: Approximate time to measure each case.
    """

    device: torch.device
    lengths: Sequence[int]
    quick: bool
    seconds: float


@dataclass(frozen=True)
class Plan:
    """A table before its cases are measured.

    Attributes:
        title: What is compared.
        caption: How it is measured.
        cases: Functions that measure a row, by the name of the case.
        ratios: Columns that divide the values of two implementations.
        unit: "ms", "MB" or "tokens/s".
    """

    title: str
    caption: str
    cases: Mapping[str, Callable[[], Row]]
    ratios: Sequence[Ratio] = ()
    unit: str = "ms"
