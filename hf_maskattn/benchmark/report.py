"""The results of a benchmark, as tables to print and as JSON."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

_MAX_COLUMN_WIDTH = 17
"""Characters in a column of numbers; longer headings are wrapped."""


@dataclass(frozen=True)
class Outcome:
    """The result of one implementation in one case.

    Attributes:
        value: Time, memory or rate, in the unit of the table; None if it was not measured.
        spread: Half of the interquartile range of the runs, relative to the median.
        difference: Largest difference from the first implementation, relative to the largest value of that output or gradient,
            of the one that is nearest to its tolerance; None for the first implementation, and for those that compute another
            function.
        unequal: Whether the difference is more than rounding; then there is no value.
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
        return f"{self.value:.0f}" if self.value >= 100 else f"{self.value:#.3g}"


@dataclass(frozen=True)
class Row:
    """One case.

    Attributes:
        outcomes: The result of each implementation, by its name.
        runs: How often each implementation was measured.
    """

    outcomes: Mapping[str, Outcome]
    runs: int = 1


@dataclass(frozen=True)
class Ratio:
    """A column that divides the values of two implementations.

    Attributes:
        heading: Heading of the column, such as "times faster than packed".
        numerator: Name of an implementation.
        denominator: Name of an implementation.
    """

    heading: str
    numerator: str
    denominator: str

    def compute(self, row: Row) -> float | None:
        """Divide; None if a value is missing."""
        numerator = row.outcomes.get(self.numerator, Outcome()).value
        denominator = row.outcomes.get(self.denominator, Outcome()).value
        return None if numerator is None or not denominator else numerator / denominator


@dataclass(frozen=True)
class Table:
    """Cases that compare the same implementations.

    Attributes:
        title: What is compared.
        caption: How it is measured.
        cases: Functions that measure a row, by the name of the case.
        ratios: Columns that follow those of the implementations, and divide the values of two of them.
        unit: "ms", "MB" or "tokens/s".
        rows: The rows that were measured, by the name of the case.
    """

    title: str
    caption: str
    cases: Mapping[str, Callable[[], Row]]
    ratios: Sequence[Ratio] = ()
    unit: str = "ms"
    rows: dict[str, Row] = field(default_factory=dict)

    @property
    def implementations(self) -> list[str]:
        """Names of the implementations, in order."""
        return list(dict.fromkeys(name for row in self.rows.values() for name in row.outcomes))

    @property
    def remarks(self) -> list[str]:
        """The remarks of all outcomes, without duplicates."""
        remarks = (
            f"{name}: {outcome.remark}."
            for row in self.rows.values()
            for name, outcome in row.outcomes.items()
            if outcome.remark
        )
        return list(dict.fromkeys(remarks))

    def __rich__(self) -> Group:
        table = RichTable("case", title=self.title, title_justify="left", title_style="bold")
        headings = [f"{name}\n{self.unit}" for name in self.implementations] + [ratio.heading for ratio in self.ratios]
        for heading in headings:
            longest_word = max(map(len, heading.split()))
            table.add_column(heading, justify="right", min_width=longest_word, max_width=_MAX_COLUMN_WIDTH)
        for case, row in self.rows.items():
            values = [str(row.outcomes.get(name, Outcome())) for name in self.implementations]
            ratios = [ratio.compute(row) for ratio in self.ratios]
            table.add_row(case, *values, *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios))
        lines = "\n".join([self.caption + self._resolution(), *self.remarks])
        return Group(table, Text(lines, style="dim"), Text())

    def _resolution(self) -> str:
        spreads = [outcome.spread for row in self.rows.values() for outcome in row.outcomes.values() if outcome.spread]
        if not spreads:
            return ""
        runs = sorted({row.runs for row in self.rows.values()})
        count = f"{runs[0]} to {runs[-1]}" if len(runs) > 1 else f"{runs[0]}"
        return (
            f" Median of {count} interleaved runs. Half of the interquartile range is {sorted(spreads)[len(spreads) // 2]:.1%} "
            f"of the median for a typical value, {max(spreads):.0%} at most."
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert the table to plain values; see `Report.to_json`."""
        return {
            "title": self.title,
            "caption": self.caption,
            "unit": self.unit,
            "rows": {
                case: {
                    "runs": row.runs,
                    "ways": {name: vars(outcome) for name, outcome in row.outcomes.items()},
                    "ratios": {ratio.heading: ratio.compute(row) for ratio in self.ratios},
                }
                for case, row in self.rows.items()
            },
        }


@dataclass(frozen=True)
class Report:
    """All tables of a run.

    Attributes:
        machine: Description of the hardware and versions.
        tables: The tables.
    """

    machine: Mapping[str, str]
    tables: Sequence[Table] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether all implementations that are comparable returned equal results."""
        return not any(
            outcome.unequal for table in self.tables for row in table.rows.values() for outcome in row.outcomes.values()
        )

    def to_json(self) -> str:
        """Convert the report to JSON.

        Returns:
            An object with `passed`, `machine` and `tables`. A table has title, caption, unit and `rows` by case; a row has
            `runs`, `ways` (the fields of `Outcome` by the name of the implementation) and `ratios`.
        """
        tables = [table.to_dict() for table in self.tables]
        return json.dumps({"passed": self.passed, "machine": dict(self.machine), "tables": tables}, indent=2)

    def __rich__(self) -> Group:
        machine = Text("\n".join(f"{name}: {value}" for name, value in self.machine.items()) + "\n")
        return Group(machine, *self.tables)
