"""Tables of the masked recurrence against packed and padded ones, and against the matrix products alone."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from hf_maskattn.benchmark.lengths import draw_lengths, grouped_batches, random_batches
from hf_maskattn.benchmark.plan import Plan, Setting
from hf_maskattn.benchmark.recurrent_ways import LIMIT, OURS, PACKED, PADDED, recurrent_ways
from hf_maskattn.benchmark.report import Ratio, Row
from hf_maskattn.benchmark.timing import race

REAL_BATCH_SIZE = 64
REAL_HIDDEN_SIZE = 384


class Shape(NamedTuple):
    """Size of a batch; `hidden` is both directions together, and the input half as wide."""

    batch: int
    time: int
    hidden: int
    spread: str

    def __str__(self) -> str:
        return f"{self.batch} x {self.time}, {self.hidden}, {self.spread}"


QUICK_SHAPES = (
    Shape(1, 16, 128, "equal"),
    Shape(32, 20, 128, "log-normal"),
    Shape(32, 128, 256, "uniform"),
)
FULL_SHAPES = (
    Shape(1, 16, 128, "equal"),
    Shape(32, 20, 128, "log-normal"),
    Shape(64, 32, 128, "uniform"),
    Shape(32, 128, 256, "uniform"),
    Shape(32, 128, 256, "equal"),
    Shape(64, 256, 128, "log-normal"),
    Shape(16, 400, 256, "uniform"),
    Shape(16, 1024, 512, "uniform"),
)
RATIOS = (
    Ratio("times faster than packed", PACKED, OURS),
    Ratio("times faster than padded", PADDED, OURS),
    Ratio("times the matrix products", OURS, LIMIT),
)


def recurrence_plans(setting: Setting) -> list[Plan]:
    """Plan four tables: LSTM and GRU, training and inference."""
    cases = {str(shape): (shape.hidden, [draw_lengths(shape.spread, shape.batch, shape.time)]) for shape in _shapes(setting)}
    batches = {"random": random_batches(setting.lengths, REAL_BATCH_SIZE, 4)}
    if not setting.quick:
        batches["grouped"] = grouped_batches(setting.lengths, REAL_BATCH_SIZE, 8)
    for name, rows in batches.items():
        cases[f"{REAL_BATCH_SIZE} cldr names, {REAL_HIDDEN_SIZE}, {name}"] = (REAL_HIDDEN_SIZE, rows)
    return [
        Plan(
            title=f"{rnn_type.upper()}, {'training' if training else 'inference'}",
            caption=(
                f"{'Forward and backward' if training else 'Forward'} of one bidirectional layer. Case: rows x columns, width "
                "of the states, lengths. Matrix products: those of the real tokens alone, at the rate of one large product."
            ),
            cases={
                case: partial(_measure, rnn_type, hidden, rows, training, setting) for case, (hidden, rows) in cases.items()
            },
            ratios=RATIOS,
        )
        for rnn_type in ("lstm", "gru")
        for training in (True, False)
    ]


def _shapes(setting: Setting) -> Sequence[Shape]:
    return QUICK_SHAPES if setting.quick else FULL_SHAPES


def _measure(rnn_type: str, hidden: int, rows: Sequence[Sequence[int]], training: bool, setting: Setting) -> Row:
    return race(recurrent_ways(rnn_type, hidden, rows, training, setting.device), setting.seconds, setting.device)
