import errno
import shutil
from pathlib import Path

import pytest
import torch
from transformers import Trainer

from hf_maskattn.checkpoints import checkpoint_writing
from hf_maskattn.checkpoints.manifest import find_damage, is_resumable, is_sealed
from hf_maskattn.recipes.recipe import read_recipe
from hf_maskattn.recipes.training_defaults import training_arguments
from hf_maskattn.training.assembly import assemble
from tests.training.toy_recipe import write_recipe


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """A Trainer with everything that a checkpoint holds."""
    recipe = read_recipe(write_recipe(tmp_path_factory.mktemp("ready"), training={"save_total_limit": 2}))
    trainer = assemble(recipe, training_arguments(recipe)).trainer
    trainer.create_optimizer_and_scheduler(10)
    return trainer


@pytest.fixture
def save(ready, tmp_path):
    """Writes the checkpoint of a step."""
    ready.args.output_dir = str(tmp_path)

    def at(step):
        ready.state.global_step = step
        ready._save_checkpoint(ready.model, trial=None)
        return tmp_path / f"checkpoint-{step}"

    yield at
    ready.args.push_to_hub = ready.args.save_only_model = False


def test_a_checkpoint_is_sealed_before_an_older_one_is_removed(save, ready, monkeypatch):
    seen = []

    def look(newest, limit, best):
        seen.append((newest.name, find_damage(newest), sorted(path.name for path in newest.parent.glob("checkpoint-*")), limit))
        rotate(newest, limit, best)

    rotate = checkpoint_writing.rotate
    monkeypatch.setattr(checkpoint_writing, "rotate", look)
    folders = [save(step) for step in (1, 2, 3)]
    assert seen[-1] == ("checkpoint-3", None, ["checkpoint-1", "checkpoint-2", "checkpoint-3"], 2)
    assert [folder.exists() for folder in folders] == [False, True, True]
    assert ready.args.save_total_limit == 2


def test_all_that_lies_in_it_is_listed(save):
    folder = save(1)
    for path in [path for path in folder.iterdir() if path.name != "manifest.json"]:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert find_damage(folder) == f"{path.name} has other bytes than were written"
        path.write_bytes(content)
    assert is_resumable(folder)


def test_what_is_pushed_is_sealed_before(save, ready, monkeypatch):
    pushed = []
    monkeypatch.setattr(Trainer, "_push_from_checkpoint", lambda self, folder: pushed.append(is_sealed(Path(folder))))
    ready.args.push_to_hub = True
    save(1)
    assert pushed == [True]


def test_an_error_of_the_hub_is_not_taken_for_a_full_disk(save, ready, monkeypatch):
    def refuse(self, folder):
        raise OSError(errno.EPIPE, "the Hub hung up")

    monkeypatch.setattr(Trainer, "_push_from_checkpoint", refuse)
    ready.args.push_to_hub = True
    with pytest.raises(OSError, match="the Hub hung up") as raised:
        save(1)
    assert raised.value.errno == errno.EPIPE


def test_a_model_alone_is_marked_as_such(save, ready):
    ready.args.save_only_model = True
    folder = save(1)
    assert find_damage(folder) is None
    assert not is_resumable(folder)


def test_a_checkpoint_that_is_written_again_is_not_trusted_until_it_is_whole(save, monkeypatch):
    folder = save(1)
    (folder / "stale").write_text("from a run that was killed")

    def killed(self, output_dir):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_rng_state", killed)
        with pytest.raises(KeyboardInterrupt):
            save(1)
    assert not is_sealed(folder)
    assert find_damage(save(1)) is None


def test_a_full_disk_is_told_with_folder_file_and_room(save, ready, monkeypatch):
    older, write = save(1), torch.save

    def full(content, path):
        if str(path).endswith("optimizer.pt"):
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(content, path)

    monkeypatch.setattr(torch, "save", full)
    words = r"checkpoint-2 could not be written to its end \(optimizer\.pt: No space left on device\); [\d,]+ MiB are free"
    with pytest.raises(OSError, match=words):
        save(2)
    assert find_damage(older) is None
    assert ready.args.save_total_limit == 2


def test_other_errors_stay_as_they_are(save, monkeypatch):
    def broken(self, output_dir):
        raise RuntimeError("a mistake")

    monkeypatch.setattr(Trainer, "_save_scaler", broken)
    with pytest.raises(RuntimeError, match="a mistake"):
        save(1)


def test_a_damaged_best_checkpoint_is_not_loaded(save, ready):
    folder = save(1)
    ready.state.best_model_checkpoint = str(folder)
    ready._load_best_model()
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(OSError, match=r"the best checkpoint, .*checkpoint-1, cannot be used any more \(model\.saf"):
        ready._load_best_model()
    ready.state.best_model_checkpoint = None
    shutil.rmtree(folder)
