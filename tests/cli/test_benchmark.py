import json

import pytest
import torch

from hf_maskattn.benchmark import attention
from hf_maskattn.benchmark.attention import Shape
from hf_maskattn.benchmark.benchmark import PARTS
from hf_maskattn.benchmark.measurement import GRADIENT_TOLERANCE
from tests.cli.conftest import assert_error, run


@pytest.fixture(autouse=True)
def _toy_sizes(monkeypatch):
    monkeypatch.setattr(attention, "QUICK_SHAPES", (Shape(2, 3, 4, 8, "uniform"),))
    monkeypatch.setattr(attention, "GROWING_SHAPES", (Shape(1, 1, 2, 4, "equal"),))


def test_benchmark_prints_tables_and_writes_json(tmp_path):
    result = run("benchmark", "attention", "--quick", "--device", "cpu", "--json", tmp_path / "speed.json")
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


def test_unequal_results_have_exit_code_1(monkeypatch):
    def wrong(*arguments):
        context, weights = attention.IMPLEMENTATIONS["eager"](*arguments)
        return 1.5 * context, weights

    monkeypatch.setitem(attention.IMPLEMENTATIONS, "wrong", wrong)
    result = run("benchmark", "attention", "--quick", "--device", "cpu")
    assert result.exit_code == 1, result.stderr
    assert "wrong: unequal, 5e-01 in " in result.stdout


def test_benchmark_errors_are_one_line(tmp_path):
    result = run("benchmark", "--json", tmp_path / "no" / "file.json")  # before anything is measured
    assert_error(result, f"error: The folder {tmp_path / 'no'} does not exist.")
    result = run("benchmark", "attention", "--device", "abacus")
    assert result.exit_code == 2
    assert "error: `device` must be available, got 'abacus'." in result.stderr
    assert run("benchmark", "everything").exit_code == 2


def test_help_lists_parts():
    result = run("benchmark", "--help")
    assert result.exit_code == 0
    assert "|".join(PARTS) in result.stdout
