"""Law: damage and full disks are found and told, and cost nothing that was written before."""

import json
import os
import shutil

import pytest

from hf_maskattn.checkpoints.checkpoints import find_damage, seal
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
    train(read(folder))
    return folder


@pytest.fixture
def ended(trained, tmp_path):
    """A copy of a finished run: its folder and its recipe."""
    run = shutil.copytree(trained / "run", tmp_path / "run")
    return run, load_recipe(trained / "toy.yaml", [f"training.output_dir={run}"])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def test_damage_is_found_before_training_goes_on_from_the_checkpoint_before(ended, caplog):
    run, recipe = ended
    whole = weights(run)
    (run / "metrics.json").unlink()
    flip(run / "checkpoint-10" / "optimizer.pt")
    train(recipe, resume=True)
    assert f"{run}/checkpoint-10 cannot be used (optimizer.pt has other bytes than were written); going on from " in caplog.text
    assert weights(run) == whole
    assert find_damage(run / "checkpoint-10") is None


def test_a_damaged_best_checkpoint_is_told_and_forgotten(tmp_path, caplog):
    recipe = read(tmp_path, "training.learning_rate=0")
    train(recipe)
    (tmp_path / "run" / "metrics.json").unlink()
    flip(tmp_path / "run" / "checkpoint-5" / "model.safetensors")
    train(recipe, resume=True)
    assert "cannot be used (model.safetensors has other bytes than were written). The best of the following" in caplog.text
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["best_checkpoint"] is None


def test_a_damaged_model_of_a_finished_run_is_told_and_written_again_if_asked_for(ended):
    run, recipe = ended
    whole = weights(run)
    flip(run / "model.safetensors")
    damaged = weights(run)
    with pytest.raises(ValueError, match=r"finished, but model\.safetensors has other bytes than were written"):
        train(recipe, resume=True)
    assert weights(run) == damaged
    (run / "metrics.json").unlink()
    train(recipe, resume=True)
    assert weights(run) == whole


def test_a_run_that_was_cut_off_while_its_model_was_written_is_not_finished(ended):
    run, recipe = ended
    for name in ("manifest.json", "tokenizer.json"):
        (run / name).unlink()
    train(recipe, resume=True)
    assert (run / "tokenizer.json").exists()


def test_checkpoints_of_the_model_alone_are_refused_by_name(ended):
    run, recipe = ended
    for path in (run / "checkpoint-5", run / "checkpoint-10"):
        (path / "optimizer.pt").unlink()
        seal(path, resumable=False)
    (run / "metrics.json").unlink()
    with pytest.raises(ValueError, match=r"checkpoint-10 was saved with training\.save_only_model=true, without what a run"):
        train(recipe, resume=True)
    assert (run / "checkpoint-10" / "model.safetensors").exists()


def test_a_step_that_breaks_leaves_checkpoint_and_log_and_says_how_to_go_on(tmp_path, monkeypatch):
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


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no file that is always full")
@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("checkpoint-10/optimizer.pt", r"run.checkpoint-10 could not be written completely \(.*\)\. The disk has [\d,]+ MiB"),
        ("checkpoint-10/manifest.json.part", r"checkpoint-10.manifest\.json could not be written: No space left on device"),
        ("metrics.json.part", r"run.metrics\.json could not be written: No space left on device"),
        ("tokenizer.json", r"run could not be written completely \(.*No space left on device"),
    ],
)
def test_a_full_disk_costs_nothing_that_was_written_before(tmp_path, file, words):
    full, recipe = tmp_path / "run" / file, read(tmp_path)
    full.parent.mkdir(parents=True)
    resolved_recipe.save_recipe(recipe, tmp_path / "run" / "recipe.yaml")
    full.symlink_to("/dev/full")
    with pytest.raises(OSError, match=words) as raised:
        train(recipe, resume=True)
    last = 5 if "checkpoint" in file else 10
    assert raised.value.__notes__ == [
        f"The last checkpoint is {tmp_path}/run/checkpoint-{last}: continue from it with --resume."
    ]
    assert find_damage(tmp_path / "run" / f"checkpoint-{last}") is None
    assert (tmp_path / "run" / "trainer_state.json").exists()
    full.unlink()
    report = train(recipe, resume=True)
    assert report.metrics["train"]["steps"] == 10
    assert find_damage(tmp_path / "run" / "checkpoint-10") is None


def test_a_full_disk_before_the_first_checkpoint_is_told(tmp_path):
    recipe = read(tmp_path)
    (tmp_path / "run").mkdir()
    resolved_recipe.save_recipe(recipe, tmp_path / "run" / "recipe.yaml")
    (tmp_path / "run" / "checkpoint-5").write_text("in the way")
    with pytest.raises(OSError, match="checkpoint-5 could not be written completely") as raised:
        train(recipe, resume=True)
    assert raised.value.__notes__ == ["No checkpoint was saved: --resume starts from the beginning."]
