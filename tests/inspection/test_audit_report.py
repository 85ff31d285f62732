import io
import json

from rich.console import Console

from hf_maskattn.inspection.audit_checks import CHECKS, GRADIENT_CHECKS
from hf_maskattn.inspection.audit_report import LEAK_DESCRIPTIONS, NAN_UNDER_THE_MASK, AuditReport, Finding, Verdict

EXACT = Finding(Verdict.EXACT, 0.0, 1e-5, "logits", 0)
LEAK = Finding(Verdict.LEAKS, 0.25, 1e-5, "logits", 1, 2, reason="[b]reason[/b]")


def report(**findings):
    return AuditReport("Toy", "float32", "cpu", "random ids, 4 rows of 1 to 9 tokens", findings, ("A note.",))


def test_report_fails_on_leaks_and_not_finite_outputs():
    assert report(a=EXACT, b=Finding(Verdict.REFUSED), c=Finding(Verdict.NOT_APPLICABLE)).passed
    assert report(a=Finding(Verdict.WITHIN_TOLERANCE, 1e-7, 1e-5)).passed
    assert not report(a=EXACT, b=LEAK).passed
    assert not report(a=Finding(Verdict.NOT_FINITE)).passed
    assert report(**{NAN_UNDER_THE_MASK: Finding(Verdict.NOT_FINITE)}).passed
    assert not report(**{NAN_UNDER_THE_MASK: LEAK}).passed


def test_json_has_all_values():
    read = json.loads(report(a=EXACT, b=LEAK).to_json())
    assert read["passed"] is False
    assert (read["model"], read["dtype"], read["device"]) == ("Toy", "float32", "cpu")
    assert read["inputs"] == "random ids, 4 rows of 1 to 9 tokens"
    assert read["notes"] == ["A note."]
    assert read["findings"]["b"] == {
        "verdict": "LEAKS",
        "difference": 0.25,
        "tolerance": 1e-5,
        "output": "logits",
        "row": 1,
        "token": 2,
        "reason": "[b]reason[/b]",
    }


def test_table_and_text_show_location_and_reason():
    console = Console(width=120, file=io.StringIO())
    console.print(report(a=EXACT, b=LEAK))
    for shown in (console.file.getvalue(), str(report(a=EXACT, b=LEAK))):
        assert "Toy, float32 on cpu: random ids, 4 rows of 1 to 9 tokens" in shown
        assert "A note." in shown
        line = next(line for line in shown.splitlines() if "LEAKS" in line)
        for part in ("b", "2.5e-01", "logits, row 1, token 2; [b]reason[/b]"):
            assert part in line
        assert "row 0" not in shown  # exact findings have no location


def test_each_leak_is_explained():
    assert list(LEAK_DESCRIPTIONS) == [*CHECKS, *GRADIENT_CHECKS]
    text = str(report(holes=LEAK, **{"empty row": EXACT}))
    assert "holes: padding between the tokens changes the outputs." in text
    assert LEAK_DESCRIPTIONS["empty row"] not in text
