"""What the guide shows is what happens: its table, and the leaks that it shows by hand."""

import contextlib
import io
import re
import runpy
from pathlib import Path

import pytest
import transformers

pytestmark = pytest.mark.skipif(
    not transformers.__version__.startswith(("5.23.", "5.24.")),
    reason="what the guide shows was seen with transformers 5.23 and 5.24",
)
ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/audit.md").read_text(encoding="utf-8")
BY_HAND = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture(scope="module")
def table():
    """What the example prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(ROOT / "examples/audit_others.py"))["main"]()
    return printed.getvalue()


def cells(text):
    """The verdicts by check and model, where rounding may or may not show."""
    rows = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in text.splitlines() if line[:1] in "│┃"]
    return [["sound" if cell in ("exact", "within") else cell for cell in row] for row in rows]


def test_the_table_over_models_of_others_is_as_printed(table):
    shown = GUIDE.split("python examples/audit_others.py` prints:")[1].split("```")[1]
    assert len(cells(table)) == 14
    assert cells(shown) == cells(table)
    leaks = re.compile(r"^(.*): \S+ at", re.MULTILINE)
    assert leaks.findall(shown) == leaks.findall(table) != []


def test_every_leak_is_shown_by_hand(capsys):
    names = {}
    for block in BY_HAND:
        exec(block, names)
        expected = [
            float(number) for number in re.findall(r"\d+e[+-]\d\d", "".join(re.findall(r"^# .*\n", block, re.MULTILINE)))
        ]
        printed = [float(number) for number in capsys.readouterr().out.split()]
        assert [value > 1e-3 for value in printed] == [value > 1e-3 for value in expected]
        assert all(value > 1e-3 or value < 1e-5 for value in printed)
    assert len(BY_HAND) == 5
