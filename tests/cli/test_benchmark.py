import json

import pytest
import torch
from typer.testing import CliRunner

from hf_maskattn.benchmark import attention
from hf_maskattn.benchmark.attention import Shape
from hf_maskattn.benchmark.benchmark import PARTS
from hf_maskattn.benchmark.measurement import GRADIENT_TOLERANCE
from hf_maskattn.cli import app


@pytest.fixture
def run(monkeypatch):
    """Runs the verb in this process, at toy sizes."""
    monkeypatch.setattr(attention, "QUICK_SHAPES", (Shape(2, 3, 4, 8, "uniform"),))
    monkeypatch.setattr(attention, "GROWING_SHAPES", (Shape(1, 1, 2, 4, "equal"),))
    return lambda *arguments: CliRunner().invoke(app, ["benchmark", *map(str, arguments)])


def test_benchmark_prints_tables_and_writes_json(run, tmp_path):
    result = run("attention", "--quick", "--device", "cpu", "--json", tmp_path / "speed.json")
    assert result.exit_code == 0, result.stderr
    assert f"torch {torch.__version__}" in result.stdout
    assert "│ B2 Tq3 Tk4 A8, uniform │" in result.stdout
    assert "100%" in result.stderr
    content = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert content["passed"] is True
    assert [table["unit"] for table in content["tables"]] == ["ms", "MB", "MB"]
    case = content["tables"][0]["rows"]["B2 Tq3 Tk4 A8, uniform"]
    assert case["ways"]["ragged"]["value"] > 0
    assert case["ways"]["ragged"]["difference"] < GRADIENT_TOLERANCE


def test_unequal_results_have_exit_code_1(run, monkeypatch):
    def wrong(*arguments):
        context, weights = attention.IMPLEMENTATIONS["eager"](*arguments)
        return 1.5 * context, weights

    monkeypatch.setitem(attention.IMPLEMENTATIONS, "wrong", wrong)
    result = run("attention", "--quick", "--device", "cpu")
    assert result.exit_code == 1, result.stderr
    assert "wrong: unequal, 5e-01 in " in result.stdout


def test_benchmark_errors_are_one_line(run, tmp_path):
    result = run("--json", tmp_path / "no" / "file.json")  # before anything is measured
    assert result.exit_code == 2
    assert f"error: The folder {tmp_path / 'no'} does not exist." in result.stderr
    result = run("attention", "--device", "abacus")
    assert result.exit_code == 2
    assert "error: `device` must be available, got 'abacus'." in result.stderr
    assert run("everything").exit_code == 2


def test_help_lists_parts(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    result = run("--help")
    assert result.exit_code == 0
    assert "|".join(PARTS) in result.stdout
