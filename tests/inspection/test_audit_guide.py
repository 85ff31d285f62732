"""The output in docs/audit.md is that of its example and code blocks."""

import contextlib
import io
import re
import runpy
from pathlib import Path

import pytest
import transformers

pytestmark = pytest.mark.skipif(
    not transformers.__version__.startswith(("5.23.", "5.24.")),
    reason="the output in docs/audit.md is that of transformers 5.23 and 5.24",
)
ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/audit.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)[
    1:
]  # the first one shows how to audit; tests/test_docs.py runs it


@pytest.fixture(scope="module")
def table():
    """The output of the example."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(ROOT / "examples/audit_others.py"))["main"]()
    return printed.getvalue()


def parse_table(text):
    """The verdicts by check and model; exact and within tolerance are not distinguished."""
    rows = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in text.splitlines() if line[:1] in "│┃"]
    return [["passed" if cell in ("exact", "within") else cell for cell in row] for row in rows]


def test_table_in_guide_is_that_of_the_example(table):
    shown = GUIDE.split("python examples/audit_others.py` prints:")[1].split("```")[1]
    assert len(parse_table(table)) == 14
    assert parse_table(shown) == parse_table(table)
    leaks = re.compile(r"^(.*): \S+ at", re.MULTILINE)
    assert leaks.findall(shown) == leaks.findall(table) != []


def test_code_blocks_in_guide_print_their_comments(capsys):
    names = {}
    for block in BLOCKS:
        exec(block, names)
        expected = [
            float(number) for number in re.findall(r"\d+e[+-]\d\d", "".join(re.findall(r"^# .*\n", block, re.MULTILINE)))
        ]
        printed = [float(number) for number in capsys.readouterr().out.split()]
        assert [value > 1e-3 for value in printed] == [value > 1e-3 for value in expected]
        assert all(value > 1e-3 or value < 1e-5 for value in printed)
    assert len(BLOCKS) == 5
