"""The numbered course runs, at toy size, and stays short."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def course(monkeypatch):
    """Loads the `main` of an example."""
    monkeypatch.chdir(EXAMPLES.parent)
    return lambda name: runpy.run_path(str(EXAMPLES / name))["main"]


def test_classify_then_load_anywhere(course, tmp_path, capfd):
    course("01_classify.py")(str(tmp_path), rows=64, epochs=1)
    assert "eval_accuracy" in capfd.readouterr().out
    course("03_load_anywhere.py")(str(tmp_path))
    assert "AutoModelForMaskedLM MaskAttnForMaskedLM (2, 12, " in capfd.readouterr().out


def test_tag(course, tmp_path, capfd):
    course("02_tag.py")(str(tmp_path), "training.max_steps=2", "model.hidden_size=16")
    assert "22 de noviembre de 2026" in capfd.readouterr().out


def test_padding_study(course, tmp_path, capfd):
    course("04_padding_study.py")(fast=True, picture=tmp_path / "study.png")
    printed = capfd.readouterr().out
    for way in ("masked", "renormalized", "zeroed", "no mask"):
        assert way in printed
    assert (tmp_path / "study.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["01_classify.py", "02_tag.py", "03_load_anywhere.py"])
def test_a_lesson_is_short(name):
    assert len((EXAMPLES / name).read_text().splitlines()) < 60
