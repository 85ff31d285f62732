import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file

from hf_maskattn.training.averaging import average_weights
from hf_maskattn.training.callbacks import TrainingInterrupted
from hf_maskattn.training.results import RunReport
from hf_maskattn.training.train import train
from tests.tolerances import OUTPUT
from tests.training.toy_recipe import STREAM, load_toy

AVERAGE = "training.average_checkpoints=3"
BY_LOSS = ("training.num_train_epochs=6", "training.metric_for_best_model=loss", "training.keep_checkpoints=all")
# So high a learning rate moves the weights around a minimum, so low a rate moves them steadily towards it.
AROUND, TOWARDS = "training.learning_rate=0.3", "training.learning_rate=1e-3"


def read(tmp_path, *overrides, task="fill-mask", **groups):
    return load_toy(tmp_path, AVERAGE, "training.lr_scheduler_type=constant", *overrides, task=task, **groups)


def weights(folder):
    return load_file(folder / "model.safetensors")


def mean_of_checkpoints(folder, steps):
    checkpoints = [weights(folder / f"checkpoint-{step}") for step in steps]
    return {key: sum(one[key].double() for one in checkpoints) / len(steps) for key in checkpoints[0]}


def assert_equal_weights(found, expected):
    torch.testing.assert_close(found, expected, atol=OUTPUT, rtol=0, check_dtype=False)


@pytest.mark.parametrize("task", ["fill-mask", pytest.param("text2text-generation", marks=pytest.mark.slow)])
def test_better_average_is_the_model(tmp_path, caplog, task):
    recipe = read(tmp_path, *BY_LOSS, AROUND, task=task)
    with caplog.at_level(logging.INFO):
        report = train(recipe)
    folder = tmp_path / "run"
    assert report.best.averaged_steps == [20, 25, 30]
    assert_equal_weights(weights(folder), mean_of_checkpoints(folder, [20, 25, 30]))
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    assert report.metrics["validation"]["loss"] < min(entry["eval_loss"] for entry in history if "eval_loss" in entry)
    assert report.metrics["validation"]["loss"] == pytest.approx(report.best.value)
    assert str(report.best).startswith("average of 3 checkpoints, steps 20 to 30, with loss ")
    assert f"The {report.best}. The best checkpoint has " in caplog.text
    assert ": the model is the average." in caplog.text
    assert json.loads((folder / "metrics.json").read_text())["best_checkpoint"] is None
    assert RunReport.load(folder).best == report.best


def test_best_checkpoint_is_the_model_where_the_average_is_worse(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        report = train(read(tmp_path, *BY_LOSS, TOWARDS))
    folder = tmp_path / "run"
    assert (report.best.step, report.best.averaged_steps) == (30, [])
    assert_equal_weights(weights(folder), weights(folder / "checkpoint-30"))
    assert "The average of 3 checkpoints, steps 20 to 30, with loss " in caplog.text
    assert ": the model is the checkpoint." in caplog.text
    assert json.loads((folder / "metrics.json").read_text())["best_checkpoint"] == "checkpoint-30"


def test_checkpoints_are_kept_for_the_average(tmp_path):
    recipe = read(tmp_path, *BY_LOSS[:2], AROUND)
    assert train(recipe).best.averaged_steps == [20, 25, 30]
    left = {path.name for path in (tmp_path / "run").glob("checkpoint-*")}
    assert "checkpoint-30" in left
    assert len(left) <= 2  # and the best one


@pytest.mark.slow
def test_streams_are_averaged(tmp_path):
    steps = ("training.seed=1", "training.max_steps=30", "training.eval_steps=5")
    report = train(read(tmp_path, *BY_LOSS[1:], *STREAM, *steps, AROUND))
    assert report.best.averaged_steps == [20, 25, 30]


@pytest.mark.parametrize("save_steps", [100, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (4, 8))])
def test_best_evaluation_between_checkpoints_is_saved(tmp_path, save_steps):
    steps = ("training.max_steps=30", "training.eval_strategy=steps", "training.eval_steps=4")
    settings = (*steps, f"training.save_steps={save_steps}", AROUND, "training.average_checkpoints=")
    report = train(read(tmp_path, *BY_LOSS[1:2], *settings, task="text2text-generation"))
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    losses = {entry["step"]: entry["eval_loss"] for entry in history if "eval_loss" in entry}
    assert losses[report.best.step] == min(losses.values())
    assert report.metrics["validation"]["loss"] == pytest.approx(report.best.value)
    assert (tmp_path / "run" / f"checkpoint-{report.best.step}").is_dir()
    assert f"Weights: {report.best}." in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("interrupts", [[27], [22, 27]])
def test_interrupted_run_averages_the_checkpoints_of_an_unbroken_one(tmp_path, interrupt_at, interrupts):
    recipe = read(tmp_path, *BY_LOSS, AROUND)
    report, folder = train(recipe), tmp_path / "run"
    expected, checkpoints = weights(folder), sorted(folder.glob("checkpoint-*"))
    for number, step in enumerate(interrupts):
        interrupt_at(step)
        with pytest.raises(TrainingInterrupted):
            train(recipe, overwrite=number == 0, resume=number > 0)
    interrupt_at(0)
    resumed = train(recipe, resume=True)
    assert resumed.best == report.best
    assert_equal_weights(weights(folder), expected)
    assert sorted(folder.glob("checkpoint-*")) == checkpoints


@pytest.mark.slow
def test_longer_run_averages_consecutive_checkpoints_only(tmp_path, caplog):
    keep = (*BY_LOSS[1:], AROUND)
    train(read(tmp_path, *keep, "training.num_train_epochs=4"))
    for step in (10, 15):  # as if the first run had kept its best and its last checkpoint
        shutil.rmtree(tmp_path / "run" / f"checkpoint-{step}")
    assert (tmp_path / "run" / "checkpoint-5").is_dir()
    with caplog.at_level(logging.INFO):
        train(read(tmp_path, *keep, "training.num_train_epochs=5", "training.average_checkpoints=4"), resume=True)
    assert "The average of 2 checkpoints, steps 20 to 25, with loss " in caplog.text


@pytest.mark.slow
def test_resumed_run_averages_the_same_checkpoints(tmp_path):
    recipe = read(tmp_path, *BY_LOSS, AROUND)
    report, folder = train(recipe), tmp_path / "run"
    expected = weights(folder)
    (folder / "metrics.json").unlink()
    shutil.rmtree(folder / "checkpoint-30")
    resumed = train(recipe, resume=True)
    assert resumed.best == report.best
    assert_equal_weights(weights(folder), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("left", "averaged"), [(["checkpoint-30", "checkpoint-25"], [25, 30]), (["checkpoint-30"], [])])
def test_fewer_checkpoints_are_averaged_as_far_as_there_are_two(tmp_path, caplog, left, averaged):
    recipe = read(tmp_path, *BY_LOSS, AROUND)
    train(recipe)
    folder = tmp_path / "run"
    (folder / "metrics.json").unlink()
    for checkpoint in folder.glob("checkpoint-*"):
        if checkpoint.name not in left:
            shutil.rmtree(checkpoint)
    best = train(recipe, resume=True).best
    assert ([] if best is None else best.averaged_steps) == averaged
    assert ("average_checkpoints=3 has no effect, because" in caplog.text) == (not averaged)


def test_average_of_a_damaged_checkpoint_raises(tmp_path):
    train(read(tmp_path, "training.num_train_epochs=1"))
    checkpoint = tmp_path / "run" / "checkpoint-5"
    assert average_weights([checkpoint]).keys() == weights(checkpoint).keys()
    with (checkpoint / "model.safetensors").open("r+b") as file:
        file.write(b"0")
    with pytest.raises(OSError, match=r"checkpoint-5 cannot be averaged \(the checksum of model\.safetensors does not match\)"):
        average_weights([checkpoint])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.average_checkpoints=1"], r"average_checkpoints must be at least 2, got 1\."),
        (["data.validation_file="], r"average_checkpoints=3 needs a validation split"),
        (["training.eval_strategy=no"], r"average_checkpoints=3 needs evaluations during training"),
        (["training.load_best_model_at_end=false"], r"average_checkpoints=3 needs training\.load_best_model_at_end=true"),
        (["training.save_total_limit=3"], r"save_total_limit must be at least 4 with training\.average_checkpoints=3"),
    ],
)
def test_average_that_is_not_possible_raises(tmp_path, settings, message):
    with pytest.raises(ValueError, match=rf"^training\.{message}"):
        train(read(tmp_path, *settings))
    assert not (tmp_path / "run").exists()


def test_average_of_sharded_weights_raises(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_maskattn.training.train.check_launch", lambda args: None)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match=r"average_checkpoints=3 is not supported with FSDP or DeepSpeed, which shard weights"):
        train(read(tmp_path))


@pytest.mark.slow
def test_run_resumes_from_a_best_checkpoint_at_the_end_of_an_epoch(tmp_path):
    steps = ("training.max_steps=23", "training.eval_strategy=steps", "training.eval_steps=5", "training.save_steps=100")
    settings = (*BY_LOSS[1:], *steps, TOWARDS, "training.save_total_limit=20", "training.average_checkpoints=")
    recipe = read(tmp_path, *settings)
    report, folder = train(recipe), tmp_path / "run"
    expected = weights(folder / "checkpoint-23")
    (folder / "metrics.json").unlink()
    for step in (20, 23):  # as if the run had been killed after the best checkpoint of step 15, the last one of an epoch
        shutil.rmtree(folder / f"checkpoint-{step}", ignore_errors=True)
    assert (folder / "checkpoint-15").is_dir()
    assert train(recipe, resume=True).best == report.best
    assert all(torch.equal(value, expected[key]) for key, value in weights(folder / "checkpoint-23").items())
