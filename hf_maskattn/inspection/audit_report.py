"""What an audit found: a verdict for each check, as a table for people and as JSON for machines."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from rich.table import Table
from rich.text import Text


class Verdict(StrEnum):
    """How a check ended."""

    EXACT = "exact"
    WITHIN_TOLERANCE = "within tolerance"
    LEAKS = "LEAKS"
    NOT_FINITE = "not finite"
    REFUSED = "refused"
    NOT_APPLICABLE = "not applicable"


FAILURES = (Verdict.LEAKS, Verdict.NOT_FINITE)
NAN_UNDER_THE_MASK = "NaN under the mask"
"""The check that hardly a model stands, and that asks for more than correct padding: it does not decide `passed`."""

_STYLES = {
    Verdict.EXACT: "green",
    Verdict.WITHIN_TOLERANCE: "green",
    Verdict.LEAKS: "bold red",
    Verdict.NOT_FINITE: "bold red",
    Verdict.REFUSED: "yellow",
    Verdict.NOT_APPLICABLE: "dim",
}


@dataclass(frozen=True)
class Finding:
    """What one comparison found.

    Attributes:
        verdict: How it ended.
        difference: The difference that is largest in units of its tolerance; None where nothing finite was measured.
        tolerance: What is allowed at that output: a share, fixed by the dtype, of its largest value.
        output: Name of the output (for gradients: of the tensor) where that difference sits.
        row: Its row in the batch.
        token: Its token, counted in the row without pads; None for what a model says of a whole row.
        reason: Why a check was refused or not applicable, or how to read its verdict.
    """

    verdict: Verdict
    difference: float | None = None
    tolerance: float | None = None
    output: str | None = None
    row: int | None = None
    token: int | None = None
    reason: str | None = None

    @property
    def place(self) -> str:
        """Where the difference sits, in words; empty where there is none."""
        if self.output is None or self.verdict is Verdict.EXACT:
            return ""
        parts = [f"{name} {value}" for name, value in (("row", self.row), ("token", self.token)) if value is not None]
        return ", ".join([self.output, *parts])

    @property
    def remarks(self) -> str:
        """Place and reason."""
        return "; ".join(part for part in (self.place, self.reason) if part)


@dataclass(frozen=True)
class AuditReport:
    """Whether padding leaks into what a model says.

    Printing it gives lines of text, `rich.print` a table.

    Attributes:
        model: Name of the model's class.
        dtype: Of its parameters.
        device: Where it ran.
        inputs: What it read, in words.
        findings: What each check found, by its name.
        notes: What else a reader must know, such as that the model takes no mask.
    """

    model: str
    dtype: str
    device: str
    inputs: str
    findings: dict[str, Finding]
    notes: Sequence[str] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether no check found a leak, or, from finite inputs, a value that is not finite."""
        return not any(
            finding.verdict is Verdict.LEAKS or (finding.verdict is Verdict.NOT_FINITE and check != NAN_UNDER_THE_MASK)
            for check, finding in self.findings.items()
        )

    def to_json(self) -> str:
        """Write the report as JSON.

        Returns:
            An object with `passed`, `model`, `dtype`, `device`, `inputs`, `notes`, and `findings` by the name of the check.
        """
        return json.dumps({"passed": self.passed, **asdict(self)}, indent=2, ensure_ascii=False)

    def table(self) -> Table:
        """Draw the report.

        Returns:
            A table with a row for each check.
        """
        table = Table(title=Text(self._title), title_justify="left", caption_justify="left")
        table.caption = Text("\n".join(self.notes)) if self.notes else None
        for name, justify in (("check", "left"), ("verdict", "left"), ("difference", "right"), ("tolerance", "right")):
            table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        table.add_column("where, why", overflow="fold")
        for check, finding in self.findings.items():
            cells = (_number(finding.difference), _number(finding.tolerance), Text(finding.remarks))
            table.add_row(check, Text(finding.verdict, _STYLES[finding.verdict]), *cells)
        return table

    def __rich__(self) -> Table:
        return self.table()

    def __str__(self) -> str:
        lines = [self._title]
        for check, finding in self.findings.items():
            parts = [finding.verdict, _number(finding.difference), finding.remarks]
            lines.append(f"  {check}: " + "; ".join(part for part in parts if part))
        return "\n".join([*lines, *self.notes])

    @property
    def _title(self) -> str:
        return f"{self.model}, {self.dtype} on {self.device}: {self.inputs}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}" if value else "0"
