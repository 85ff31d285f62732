"""Compares what a model said of the same real tokens twice."""

from collections.abc import Mapping, Sequence

import torch

from hf_maskattn.inspection.audit_report import Finding, Verdict

Reading = Mapping[str, Sequence[torch.Tensor]]
"""For each output, what it holds of each row: `[n, ...]` over its real tokens, or `[...]` for the row as a whole."""

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
"""Difference between two ways of computing the same, as a share of the largest value of an output."""

_SEVERITY = [Verdict.EXACT, Verdict.WITHIN_TOLERANCE, Verdict.LEAKS, Verdict.NOT_FINITE]


def compare(expected: Reading, found: Reading, per_token: frozenset[str] = frozenset(), scale: float | None = None) -> Finding:
    """Compare two readings output by output.

    Args:
        expected: What the model says otherwise.
        found: What it says now, of the same rows.
        per_token: Names of the outputs whose first axis counts tokens.
        scale: Size by which tolerances go; None takes the largest value of each output.

    Returns:
        The worst finding over all outputs.
    """
    return worst([_compare_output(name, rows, found[name], name in per_token, scale) for name, rows in expected.items()])


def worst(findings: Sequence[Finding]) -> Finding:
    """Choose the finding with the gravest verdict, among these the one that is furthest beyond its tolerance.

    Args:
        findings: At least one, each of a check that ran.

    Returns:
        One of them.
    """
    return max(findings, key=lambda finding: (_SEVERITY.index(finding.verdict), _excess(finding)))


def judge(difference: float, tolerance: float, **place: str | int | None) -> Finding:
    """Give a difference its verdict.

    Args:
        difference: Absolute, at least 0.
        tolerance: What is allowed.
        **place: Where it sits: `output`, `row` and `token` of a `Finding`.

    Returns:
        The finding: exact, within tolerance, or a leak.
    """
    verdict = Verdict.LEAKS if difference > tolerance else Verdict.WITHIN_TOLERANCE if difference else Verdict.EXACT
    return Finding(verdict, difference, tolerance, **place)  # type: ignore[arg-type]


def _compare_output(
    name: str, expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor], per_token: bool, scale: float | None
) -> Finding:
    if scale is None:
        scale = max(float(row.abs().max()) for row in expected if row.numel())
    tolerance = TOLERANCES[expected[0].dtype] * scale
    largest = 0.0
    place: tuple[int, int | None] = (0, None)
    for number, (row, other) in enumerate(zip(expected, found, strict=True)):
        # A NaN or an infinity on either side makes the difference one as well.
        difference = (row.cpu().double() - other.cpu().double()).abs()
        if not difference.isfinite().all():
            where = _token(~difference.isfinite(), per_token)
            return Finding(Verdict.NOT_FINITE, output=name, row=number, token=where)
        if difference.numel() and float(difference.max()) > largest:
            largest, place = float(difference.max()), (number, _token(difference == difference.max(), per_token))
    return judge(largest, tolerance, output=name, row=place[0], token=place[1])


def _token(found: torch.Tensor, per_token: bool) -> int | None:
    return int(found.nonzero()[0, 0]) if per_token else None


def _excess(finding: Finding) -> float:
    if not finding.difference:
        return 0.0
    return finding.difference / finding.tolerance if finding.tolerance else float("inf")
