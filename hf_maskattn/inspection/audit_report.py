"""The report of an audit: a finding for each check, as a table to print and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from rich.table import Table
from rich.text import Text


class Verdict(StrEnum):
    """The result of a check."""

    EXACT = "exact"
    WITHIN_TOLERANCE = "within tolerance"
    LEAKS = "LEAKS"
    NOT_FINITE = "not finite"
    REFUSED = "refused"
    NOT_APPLICABLE = "not applicable"


FAILURES = (Verdict.LEAKS, Verdict.NOT_FINITE)
NAN_UNDER_THE_MASK = "NaN under the mask"
"""The only check in which values that are not finite do not fail an audit, since almost no model passes it."""

LEAK_DESCRIPTIONS = {
    "batch against alone": "a row has other outputs in a padded batch than without padding",
    "extra padding right": "more padding after the tokens changes the outputs",
    "extra padding left": "padding before the tokens changes the outputs",
    "left, no position ids": "padding before the tokens changes the outputs unless position_ids are passed",
    "junk under the mask": "the token ids at padding positions change the outputs",
    NAN_UNDER_THE_MASK: "the embeddings at padding positions change the outputs",
    "holes": "padding between the tokens changes the outputs",
    "empty row": "a row without tokens changes the outputs of other rows",
    "permuted rows": "the order of the rows changes the outputs",
    "attention to pads": "tokens attend to padding positions",
    "attention to tokens": "padding reduces the attention between tokens",
    "gradients at pads": "the embeddings of padding positions receive a gradient",
    "gradients under junk": "the token ids at padding positions change the gradients of parameters",
}
"""What it means if a check ends with `Verdict.LEAKS`."""

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
    """The result of a check, with the location of the largest difference.

    Attributes:
        verdict: The result.
        difference: The largest difference relative to its tolerance, as an absolute value; None if nothing was compared, or the
            difference is not finite.
        tolerance: The largest difference that is rounding: a fraction of the largest value of the output, by dtype.
        output: Name of the output, or of the tensor of a gradient.
        row: Index of the row in the batch.
        token: Index of the token in its row, without padding; None for outputs of whole rows.
        reason: Why the check was refused or is not applicable, or how to read the verdict.
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
        """Location of the difference, such as "logits, row 1, token 2"; empty if there is no difference."""
        if self.output is None or self.verdict is Verdict.EXACT:
            return ""
        parts = [f"{name} {value}" for name, value in (("row", self.row), ("token", self.token)) if value is not None]
        return ", ".join([self.output, *parts])

    @property
    def remarks(self) -> str:
        """Location and reason."""
        return "; ".join(part for part in (self.place, self.reason) if part)


@dataclass(frozen=True)
class AuditReport:
    """Whether padding changes the outputs of a model.

    `print` writes lines of text, `rich.print` a table.

    Attributes:
        model: Name of the model class.
        dtype: Data type of the parameters.
        device: Device of the model.
        inputs: Description of the inputs.
        findings: The result of each check, by its name.
        notes: Further remarks, such as that the model takes no attention mask.
    """

    model: str
    dtype: str
    device: str
    inputs: str
    findings: dict[str, Finding]
    notes: Sequence[str] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether no check found a leak, or values that are not finite for finite inputs."""
        return not any(
            finding.verdict is Verdict.LEAKS or (finding.verdict is Verdict.NOT_FINITE and check != NAN_UNDER_THE_MASK)
            for check, finding in self.findings.items()
        )

    def to_json(self) -> str:
        """Convert the report to JSON.

        Returns:
            An object with `passed`, `model`, `dtype`, `device`, `inputs`, `notes`, and `findings` by the name of the check.
        """
        return json.dumps({"passed": self.passed, **asdict(self)}, indent=2, ensure_ascii=False)

    def table(self) -> Table:
        """Build a table with a row for each check, and an explanation of each leak below it."""
        table = Table(title=Text(self._title), title_justify="left", caption_justify="left")
        footer = self._footer()
        table.caption = Text("\n".join(footer)) if footer else None
        for name, justify in (("check", "left"), ("verdict", "left"), ("difference", "right"), ("tolerance", "right")):
            table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        table.add_column("location, reason", overflow="fold")
        for check, finding in self.findings.items():
            verdict = Text(finding.verdict, _STYLES[finding.verdict])
            difference, tolerance = _format(finding.difference), _format(finding.tolerance)
            table.add_row(check, verdict, difference, tolerance, Text(finding.remarks))
        return table

    def __rich__(self) -> Table:
        return self.table()

    def __str__(self) -> str:
        lines = [self._title]
        for check, finding in self.findings.items():
            parts = [finding.verdict, _format(finding.difference), finding.remarks]
            lines.append(f"  {check}: " + "; ".join(part for part in parts if part))
        return "\n".join([*lines, *self._footer()])

    def _footer(self) -> list[str]:
        leaks = [
            f"{check}: {LEAK_DESCRIPTIONS[check]}."
            for check, finding in self.findings.items()
            if finding.verdict is Verdict.LEAKS and check in LEAK_DESCRIPTIONS
        ]
        return [*leaks, *self.notes]

    @property
    def _title(self) -> str:
        return f"{self.model}, {self.dtype} on {self.device}: {self.inputs}"


def _format(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}" if value else "0"
