import json
import logging
from functools import partial

import pytest

from hf_maskattn.training import train as train_module
from hf_maskattn.training.train import train
from tests.distributed.run_commands import AtStep
from tests.training.toy_recipe import STREAM, load_toy

STEPS_PER_EPOCH = 5
WITHOUT_PROGRESS = ("training.learning_rate=0", "training.num_train_epochs=6")
PATIENCE = "training.early_stopping_patience=2"


def evaluated_steps(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry["step"] for entry in history if "eval_loss" in entry]


def test_training_stops_and_names_the_best_evaluation(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        report = train(load_toy(tmp_path, *WITHOUT_PROGRESS, PATIENCE))
    assert evaluated_steps(tmp_path / "run") == [5, 10, 15]
    assert report.metrics["train"]["epochs"] == 3
    assert "Stopped early after evaluation 3 (step 15 of 30). The best accuracy, " in caplog.text
    assert "was reached in evaluation 1 (step 5)." in caplog.text
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["best_checkpoint"] == "checkpoint-5"


@pytest.mark.slow
@pytest.mark.parametrize("steps", [["training.eval_steps=3"], [*STREAM, "training.max_steps=30", "training.eval_steps=3"]])
def test_training_stops_within_an_epoch(tmp_path, steps):
    train(load_toy(tmp_path, *WITHOUT_PROGRESS, PATIENCE, "training.eval_strategy=steps", *steps))
    assert evaluated_steps(tmp_path / "run") == [3, 6, 9]


@pytest.mark.slow
def test_resumed_run_continues_the_count(tmp_path, monkeypatch):
    recipe = load_toy(tmp_path, *WITHOUT_PROGRESS, PATIENCE)
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "KeepTrackOfBest", partial(AtStep, "fail", 2 * STEPS_PER_EPOCH + 1, 0))
        with pytest.raises(ValueError, match="this row is broken"):
            train(recipe)
    train(recipe, resume=True)
    assert evaluated_steps(tmp_path / "run") == [5, 10, 15]


@pytest.mark.slow
def test_run_that_was_killed_after_it_stopped_is_not_continued(tmp_path):
    recipe = load_toy(tmp_path, *WITHOUT_PROGRESS, PATIENCE)
    train(recipe)
    (tmp_path / "run" / "metrics.json").unlink()
    assert train(recipe, resume=True).metrics["train"]["steps"] == 15


@pytest.mark.slow
def test_longer_patience_continues_a_stopped_run(tmp_path):
    train(load_toy(tmp_path, *WITHOUT_PROGRESS, PATIENCE))
    report = train(load_toy(tmp_path, *WITHOUT_PROGRESS, "training.early_stopping_patience=3"), resume=True)
    assert report.metrics["train"]["steps"] == 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.early_stopping_patience=0"], r"must be at least 1, got 0\."),
        ([PATIENCE, "data.validation_file="], r"=2 needs a validation split\. Set data\.validation_file"),
        ([PATIENCE, "training.eval_strategy=no"], r"=2 needs evaluations during training\. Set training\.eval_strategy"),
        ([PATIENCE, "training.load_best_model_at_end=false"], r"=2 needs training\.load_best_model_at_end=true"),
        ([PATIENCE, "training.eval_delay=7"], r"got training\.eval_delay=7 in a run of 2 epochs\. Lower training\.eval_delay"),
    ],
)
def test_early_stop_that_never_happens_raises(tmp_path, settings, message):
    with pytest.raises(ValueError, match=rf"^training\.early_stopping_patience.*{message}"):
        train(load_toy(tmp_path, *settings))
    assert not (tmp_path / "run").exists()
