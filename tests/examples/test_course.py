"""The numbered course runs, at toy size, and stays short."""

import runpy
from pathlib import Path

import pytest

from tests.toy_folder import write_model_folder
from tests.training.teachers import save_teacher

EXAMPLES = Path(__file__).parents[2] / "examples"
TOY = ("model.hidden_size=16", "training.max_steps=2", "training.warmup_steps=0")


@pytest.fixture
def course(monkeypatch):
    """Loads the `main` of an example."""
    monkeypatch.chdir(EXAMPLES.parent)
    return lambda name: runpy.run_path(str(EXAMPLES / name))["main"]


@pytest.mark.slow
def test_classify_then_load_anywhere(course, tmp_path, capfd):
    course("01_classify.py")(str(tmp_path), rows=64, epochs=1)
    assert "eval_accuracy" in capfd.readouterr().out
    course("03_load_anywhere.py")(str(tmp_path))
    assert "AutoModelForMaskedLM MaskAttnForMaskedLM (2, 12, " in capfd.readouterr().out


@pytest.mark.slow
def test_tag(course, tmp_path, capfd):
    course("02_tag.py")(str(tmp_path), *TOY)
    assert "22 de noviembre de 2026" in capfd.readouterr().out


@pytest.mark.slow
def test_padding_study(course, tmp_path, capfd):
    course("04_padding_study.py")(fast=True, picture=tmp_path / "study.png")
    printed = capfd.readouterr().out
    for way in ("masked", "renormalized", "zeroed", "no mask"):
        assert way in printed
    assert (tmp_path / "study.png").stat().st_size > 10_000


@pytest.mark.slow
def test_translate_dates(course, tmp_path, capfd):
    course("05_translate_dates.py")(str(tmp_path), "data.test_split=validation", *TOY)
    assert "8 октября 2031" in capfd.readouterr().out
    assert (tmp_path / "alignments.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_publish(course, connected, tmp_path, capfd, monkeypatch):
    write_model_folder(tmp_path)
    monkeypatch.setattr("hf_maskattn.hub.publish.load_without_package", lambda folder: 600)  # as the lesson does it anyway
    monkeypatch.setenv("HF_ENDPOINT", connected.url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    publish = course("06_publish.py")
    publish(str(tmp_path), "pets", "cats meow")
    printed = capfd.readouterr().out
    assert f"{connected.url}/user/pets has a new commit" in printed
    assert "cats meow [{'label': 'LABEL_" in printed


@pytest.mark.slow
def test_distill(course, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("hf_maskattn.data.cache.HF_HOME", str(tmp_path / "cache"))
    base = save_teacher(tmp_path / "base", [str(number) for number in range(30)])  # as many as the data has
    course("07_distill.py")(base, str(tmp_path / "student"), rows=64, epochs=1)
    printed = capfd.readouterr().out
    assert "teacher: accuracy " in printed
    assert "student: accuracy " in printed


@pytest.mark.slow
def test_explain(course, tmp_path, capfd):
    course("08_explain.py")(str(tmp_path), *TOY, limit=3)
    printed = capfd.readouterr().out
    assert "Ungverjaland: " in printed
    assert "without ja: logit " in printed
    assert "removal                comprehensiveness" in printed
    assert (tmp_path / "explanation.png").exists()


LESSONS = ["01_classify", "02_tag", "03_load_anywhere", "05_translate_dates", "06_publish", "07_distill", "08_explain"]


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_is_short(name):
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 60
