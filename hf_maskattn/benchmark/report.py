"""What was measured: outcomes by case and way, as tables for people and as JSON for machines."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

_WIDEST = 17
"""Characters in a column of numbers, so that headings stand on several lines."""


@dataclass(frozen=True)
class Outcome:
    """What one way came to in one case.

    Attributes:
        value: Time, memory or rate, in the unit of the table; None where the way was not measured.
        spread: Half of the distance between the quartiles of the runs, as a share of the median.
        difference: That difference from the first way of the case which is largest in units of its tolerance, as a share of the
            largest value of its output or gradient; None where the two are not the same function, and for the first way.
        unequal: Whether that difference is more than rounding; then there is no value.
        remark: Why there is no value, or how to read it.
    """

    value: float | None = None
    spread: float | None = None
    difference: float | None = None
    unequal: bool = False
    remark: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return self.remark if self.unequal else "-"
        return _three_digits(self.value)


@dataclass(frozen=True)
class Row:
    """One case.

    Attributes:
        outcomes: What each way came to, by its name.
        runs: How often each way was measured.
    """

    outcomes: Mapping[str, Outcome]
    runs: int = 1


@dataclass(frozen=True)
class Ratio:
    """A column that divides the value of one way by that of another.

    Attributes:
        heading: What it says, such as "times faster than packed".
        over: Name of the way above the line.
        under: Name of the way below it.
    """

    heading: str
    over: str
    under: str

    def of(self, row: Row) -> float | None:
        """Divide; None where a value is missing."""
        over, under = (row.outcomes.get(name, Outcome()).value for name in (self.over, self.under))
        return None if over is None or not under else over / under


@dataclass(frozen=True)
class Table:
    """Cases that were measured in the same ways.

    Attributes:
        title: What is compared.
        caption: How it was measured.
        rows: By the name of the case.
        ratios: Columns behind those of the ways.
        unit: "ms", "MB" or "words/s".
    """

    title: str
    caption: str
    rows: Mapping[str, Row]
    ratios: Sequence[Ratio] = ()
    unit: str = "ms"

    @property
    def ways(self) -> list[str]:
        """Names of the ways in their order."""
        return list(dict.fromkeys(name for row in self.rows.values() for name in row.outcomes))

    @property
    def remarks(self) -> list[str]:
        """What the outcomes say in words, each once."""
        said = (
            f"{way}: {outcome.remark}." for row in self.rows.values() for way, outcome in row.outcomes.items() if outcome.remark
        )
        return list(dict.fromkeys(said))

    def __rich__(self) -> Group:
        table = RichTable("case", title=self.title, title_justify="left", title_style="bold")
        for heading in (*(f"{way}\n{self.unit}" for way in self.ways), *(ratio.heading for ratio in self.ratios)):
            table.add_column(heading, justify="right", min_width=max(map(len, heading.split())), max_width=_WIDEST)
        for case, row in self.rows.items():
            cells = [str(row.outcomes.get(way, Outcome())) for way in self.ways]
            ratios = [ratio.of(row) for ratio in self.ratios]
            table.add_row(case, *cells, *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios))
        lines = "\n".join([self.caption + self._resolution(), *self.remarks])
        return Group(table, Text(lines, style="dim"), Text())

    def _resolution(self) -> str:
        spreads = [outcome.spread for row in self.rows.values() for outcome in row.outcomes.values() if outcome.spread]
        if not spreads:
            return ""
        runs = sorted({row.runs for row in self.rows.values()})
        count = f"{runs[0]} to {runs[-1]}" if len(runs) > 1 else f"{runs[0]}"
        return (
            f" Median of {count} interleaved runs; half of them lie within {max(spreads):.0%} of it, or "
            f"closer (in the typical cell {sorted(spreads)[len(spreads) // 2]:.1%})."
        )

    def to_dict(self) -> dict[str, Any]:
        """Write the table as plain values."""
        return {
            "title": self.title,
            "caption": self.caption,
            "unit": self.unit,
            "rows": {
                case: {
                    "runs": row.runs,
                    "ways": {way: vars(outcome) for way, outcome in row.outcomes.items()},
                    "ratios": {ratio.heading: ratio.of(row) for ratio in self.ratios},
                }
                for case, row in self.rows.items()
            },
        }


@dataclass(frozen=True)
class Report:
    """All tables of a run, and the machine that they hold for.

    Attributes:
        machine: What ran, by name.
        tables: What was measured.
    """

    machine: Mapping[str, str]
    tables: Sequence[Table] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether all ways that should be equal were."""
        return not any(
            outcome.unequal for table in self.tables for row in table.rows.values() for outcome in row.outcomes.values()
        )

    def to_json(self) -> str:
        """Write the report as JSON.

        Returns:
            An object with `passed`, `machine`, and `tables`: title, caption, unit and `rows` by case, each with `runs`, `ways`
            (the fields of `Outcome` by the name of the way) and `ratios`.
        """
        tables = [table.to_dict() for table in self.tables]
        return json.dumps({"passed": self.passed, "machine": dict(self.machine), "tables": tables}, indent=2)

    def __rich__(self) -> Group:
        machine = Text("\n".join(f"{name}: {value}" for name, value in self.machine.items()) + "\n")
        return Group(machine, *self.tables)


def _three_digits(value: float) -> str:
    """Write a number with three digits, never as a power of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"
