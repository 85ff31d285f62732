"""TensorBoard: `training.report_to=tensorboard` of a recipe."""

import json
import os

import pytest

from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training.train import train
from tests.training.toy_recipe import write_recipe

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

EPOCHS = 2


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Builds a recipe with paths relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_not_to_be_written")
    path = write_recipe(tmp_path, training={"report_to": "tensorboard", "output_dir": "run"})
    path.write_text(path.read_text().replace(f"{tmp_path}{os.sep}", ""))
    return lambda *overrides: load_recipe("toy.yaml", overrides)


def find_logs(folder):
    return sorted(folder.glob("run/runs/*/events.out.tfevents.*"))


def read_curve(log, name):
    events = event_accumulator.EventAccumulator(str(log))
    events.Reload()
    return {event.step: event.value for event in events.Scalars(name)}


def test_curves_are_those_of_the_run_without_secrets(recipe, tmp_path):
    train(recipe())
    (log,) = find_logs(tmp_path)
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    for name, key in [("train/loss", "loss"), ("eval/loss", "eval_loss"), ("eval/accuracy", "eval_accuracy")]:
        expected = {entry["step"]: entry[key] for entry in history if key in entry}
        assert len(expected) == EPOCHS
        assert read_curve(log, name) == pytest.approx(expected)
    content = log.read_bytes()
    assert b"output_dir" in content  # the settings are in the log
    assert b"hf_not_to_be_written" not in content
    assert str(tmp_path).encode() not in content


@pytest.mark.slow
def test_resumed_run_has_its_own_log(recipe, tmp_path):
    train(recipe("training.num_train_epochs=1"))
    with pytest.raises(ValueError, match="must be an empty folder"):
        train(recipe())
    (first,) = find_logs(tmp_path)
    first.parent.rename(first.parent.with_name("Jan31_23-59-59_pc"))  # a later run, not in the same second
    train(recipe(), resume=True)
    losses = [read_curve(log, "train/loss") for log in find_logs(tmp_path)]
    assert sorted(step for points in losses for step in points) == [5, 10]
    assert len(losses) == 2
    train(recipe(), overwrite=True)
    (log,) = find_logs(tmp_path)
    assert sorted(read_curve(log, "train/loss")) == [5, 10]
    assert len(list((tmp_path / "run" / "runs").iterdir())) == 1
