"""Damaged files and full disks are reported, and do not affect what was written before."""

import json
import os
import shutil

import pytest

from hf_maskattn.checkpoints.checkpoints import find_damage, write_manifest
from hf_maskattn.recipes import training_defaults as resolved_recipe
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training.train import train
from hf_maskattn.training.trainer import MaskAttnTrainer
from tests.training.toy_recipe import write_recipe


def read(tmp_path, *overrides):
    return load_recipe(write_recipe(tmp_path), overrides)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    # The largest loss is that of the first evaluation. Its checkpoint is kept beside the last one.
    train(read(folder, "training.metric_for_best_model=loss", "training.greater_is_better=true"))
    return folder


@pytest.fixture
def finished(trained, tmp_path):
    """A copy of a finished run and its recipe."""
    run = shutil.copytree(trained / "run", tmp_path / "run")
    return run, load_recipe(trained / "run" / "recipe.yaml", [f"training.output_dir={run}"])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def test_resume_skips_damaged_checkpoint(finished, caplog):
    run, recipe = finished
    expected = weights(run)
    (run / "metrics.json").unlink()
    flip(run / "checkpoint-10" / "optimizer.pt")
    train(recipe, resume=True)
    assert f"{run}/checkpoint-10 cannot be used (the checksum of optimizer.pt does not match). Resuming from " in caplog.text
    assert weights(run) == expected
    assert find_damage(run / "checkpoint-10") is None


def test_resume_forgets_damaged_best_checkpoint(tmp_path, caplog):
    recipe = read(tmp_path, "training.learning_rate=0")
    train(recipe)
    (tmp_path / "run" / "metrics.json").unlink()
    flip(tmp_path / "run" / "checkpoint-5" / "model.safetensors")
    train(recipe, resume=True)
    assert "cannot be used (the checksum of model.safetensors does not match)" in caplog.text
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["best_checkpoint"] is None


def test_resume_reports_damaged_model_of_finished_run(finished):
    run, recipe = finished
    expected = weights(run)
    flip(run / "model.safetensors")
    damaged = weights(run)
    with pytest.raises(ValueError, match=r"finished, but the checksum of model\.safetensors does not match"):
        train(recipe, resume=True)
    assert weights(run) == damaged
    (run / "metrics.json").unlink()
    train(recipe, resume=True)
    assert weights(run) == expected


def test_resume_run_killed_while_writing_model(finished):
    run, recipe = finished
    for name in ("manifest.json", "tokenizer.json"):
        (run / name).unlink()
    train(recipe, resume=True)
    assert (run / "tokenizer.json").exists()


def test_resume_rejects_model_only_checkpoints(finished):
    run, recipe = finished
    for path in (run / "checkpoint-5", run / "checkpoint-10"):
        (path / "optimizer.pt").unlink()
        write_manifest(path, resumable=False)
    (run / "metrics.json").unlink()
    with pytest.raises(ValueError, match=r"checkpoint-10 was saved with training\.save_only_model=true, without the state"):
        train(recipe, resume=True)
    assert (run / "checkpoint-10" / "model.safetensors").exists()


def test_failing_step_keeps_checkpoint_and_log(tmp_path, monkeypatch):
    step = MaskAttnTrainer.training_step

    def break_at_step_8(self, *args, **kwargs):
        if self.state.global_step == 7:
            raise ZeroDivisionError("a mistake")
        return step(self, *args, **kwargs)

    recipe = read(tmp_path, "training.logging_steps=1")
    monkeypatch.setattr(MaskAttnTrainer, "training_step", break_at_step_8)
    with pytest.raises(ZeroDivisionError, match="a mistake") as raised:
        train(recipe)
    assert raised.value.__notes__ == [f"The last checkpoint is {tmp_path}/run/checkpoint-5: continue from it with --resume."]
    logged = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in logged if "loss" in entry] == [1, 2, 3, 4, 5, 6, 7]
    monkeypatch.setattr(MaskAttnTrainer, "training_step", step)
    assert train(recipe, resume=True).metrics["train"]["steps"] == 10


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("checkpoint-10/optimizer.pt", r"run.checkpoint-10 could not be written completely \(.*\)\. The disk has [\d,]+ MiB"),
        ("checkpoint-10/manifest.json.part", r"checkpoint-10.manifest\.json could not be written: No space left on device"),
        ("metrics.json.part", r"run.metrics\.json could not be written: No space left on device"),
        ("tokenizer.json", r"run could not be written completely \(.*No space left on device"),
    ],
)
def test_full_disk_keeps_checkpoints(tmp_path, file, words):
    full, recipe = tmp_path / "run" / file, read(tmp_path)
    full.parent.mkdir(parents=True)
    resolved_recipe.save_recipe(recipe, tmp_path / "run" / "recipe.yaml")
    full.symlink_to("/dev/full")
    with pytest.raises(OSError, match=words) as raised:
        train(recipe, resume=True)
    last = 5 if "checkpoint" in file else 10
    checkpoint = tmp_path / "run" / f"checkpoint-{last}"
    assert raised.value.__notes__ == [f"The last checkpoint is {checkpoint}: continue from it with --resume."]
    assert find_damage(tmp_path / "run" / f"checkpoint-{last}") is None
    assert (tmp_path / "run" / "trainer_state.json").exists()
    full.unlink()
    report = train(recipe, resume=True)
    assert report.metrics["train"]["steps"] == 10
    assert find_damage(tmp_path / "run" / "checkpoint-10") is None


def test_full_disk_before_first_checkpoint(tmp_path):
    recipe = read(tmp_path)
    (tmp_path / "run").mkdir()
    resolved_recipe.save_recipe(recipe, tmp_path / "run" / "recipe.yaml")
    (tmp_path / "run" / "checkpoint-5").write_text("in the way")
    with pytest.raises(OSError, match="checkpoint-5 could not be written completely") as raised:
        train(recipe, resume=True)
    assert raised.value.__notes__ == ["No checkpoint was saved: --resume starts from the beginning."]
