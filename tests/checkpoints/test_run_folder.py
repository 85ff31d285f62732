import os
import re
import signal
import time
import warnings

import pytest

from hf_maskattn.checkpoints.checkpoints import seal
from hf_maskattn.checkpoints.run_folder import (
    LOCK_FILE,
    finish,
    held_alone,
    is_finished,
    remove_run,
    reopen,
    require_empty,
    require_run,
)


def test_a_new_or_empty_folder_is_accepted(tmp_path):
    require_empty(tmp_path)
    require_empty(tmp_path / "new")


def test_the_lock_of_the_run_itself_is_no_content(tmp_path):
    (tmp_path / LOCK_FILE).write_text("")
    require_empty(tmp_path)


def test_a_folder_with_anything_in_it_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"is not empty: continue the run in it with --resume, replace it with --overwrite"):
        require_empty(tmp_path)


@pytest.mark.parametrize("names", [[], [LOCK_FILE], ["recipe.yaml.part"], ["recipe.yaml", "a"], ["checkpoint-3/x", "a"]])
def test_a_folder_in_which_a_run_began_may_be_replaced_or_gone_on_with(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    require_run(tmp_path)
    require_run(tmp_path / "new")


@pytest.mark.parametrize("name", ["README.md", "config.json", "losses.py", "metrics.json", "checkpoint-best/x", "checkpoint-3"])
def test_a_folder_of_somebody_else_may_not(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    words = f"training.output_dir={str(tmp_path)!r} is not empty, and no run began in it"
    with pytest.raises(ValueError, match=f"{re.escape(words)} .* name another folder with training.output_dir=FOLDER"):
        require_run(tmp_path)


def test_only_what_a_run_writes_is_removed(tmp_path):
    mine = ["notes.txt", "my_model.py", "checkpoint-best", "data/train.jsonl", "checkpoint-3/.keep", "config.json.bak"]
    written = ["config.json", "model.safetensors", "metrics.json", "modeling_maskattn.py", "README.md", "checkpoint-3/x"]
    written += ["manifest.json", "recipe.yaml", "recipe.yaml.part"]
    for name in mine + written:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    remove_run(tmp_path)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["checkpoint-best", "config.json.bak", "data/train.jsonl", "my_model.py", "notes.txt"]


@pytest.mark.parametrize("mine", [[], ["runs/Jan31_23-59-59_my_pc/notes.txt", "runs/other/events.out.tfevents.1.my_pc.2.0"]])
def test_the_logs_of_a_run_are_removed_with_the_folders_that_they_leave_empty(tmp_path, mine):
    logs = [f"runs/{start}_my_pc/events.out.tfevents.1.my_pc.2.0" for start in ("Jan31_23-59-59", "Feb01_00-00-00")]
    for name in logs + mine:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    remove_run(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == mine
    assert (tmp_path / "runs").exists() == bool(mine)
    assert not (tmp_path / logs[1]).parent.exists()


def test_the_recipe_is_there_as_long_as_there_is_a_checkpoint_that_might_be_resumed(tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").write_text("")
    (tmp_path / "checkpoint-3").mkdir()
    seal(tmp_path / "checkpoint-3")

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_maskattn.checkpoints.run_folder.remove_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_run(tmp_path)
    assert (tmp_path / "recipe.yaml").exists()


def test_a_run_is_finished_when_metrics_and_weights_are_there_and_it_was_said(tmp_path):
    for name in ("metrics.json", "model.safetensors", "config.json"):
        assert not is_finished(tmp_path)
        (tmp_path / name).write_text("as written")
    assert not is_finished(tmp_path)
    finish(tmp_path)
    assert is_finished(tmp_path)
    (tmp_path / "config.json").write_text("edited by hand")
    assert is_finished(tmp_path)
    (tmp_path / "model.safetensors").write_text("as writteN")
    with pytest.raises(ValueError, match=r"finished, but model\.safetensors has other bytes .* remove .*metrics\.json"):
        is_finished(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert not is_finished(tmp_path)


def test_a_run_that_begins_again_is_not_finished(tmp_path):
    for name in ("metrics.json", "model.safetensors"):
        (tmp_path / name).write_text("")
    finish(tmp_path)
    reopen(tmp_path)
    (tmp_path / "metrics.json").write_text("")
    assert not is_finished(tmp_path)


def test_nothing_to_remove_is_fine(tmp_path):
    remove_run(tmp_path / "nowhere")


REFUSED = r"another run is at work in .*run: wait until it has ended or stop it, or name another folder with training\."


def fork():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, where there may be threads
        return os.fork()


def test_a_folder_is_held_alone_and_again_later(tmp_path):
    for _ in range(2):
        with held_alone(tmp_path / "run"):
            with pytest.raises(ValueError, match=REFUSED), held_alone(tmp_path / "run"):
                pass
            (tmp_path / "run" / "recipe.yaml").write_text("")
        assert os.listdir(tmp_path / "run") == ["recipe.yaml"]


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")])
@pytest.mark.parametrize("place", ["pathlib.Path.mkdir", "filelock.FileLock.acquire"])
def test_a_folder_that_cannot_be_written_to_is_named_with_the_way_out(tmp_path, monkeypatch, place, error):
    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(place, refuse)
    words = rf"^training\.output_dir must be .* got '{tmp_path}/run' \({error.strerror}\)\. Name another one with"
    with pytest.raises(OSError, match=words), held_alone(tmp_path / "run"):
        pass


def test_a_process_that_is_killed_holds_nothing_even_if_children_outlive_it(tmp_path):
    """Workers of a dataloader notice after some seconds that a run was killed."""
    told, tell = os.pipe()
    child = fork()
    if child == 0:
        with held_alone(tmp_path / "run"):
            grandchild = fork()
            if grandchild:
                os.write(tell, str(grandchild).encode())
            signal.pause()
    grandchild = int(os.read(told, 20))
    try:
        with pytest.raises(ValueError, match=REFUSED), held_alone(tmp_path / "run"):
            pass
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert (tmp_path / "run" / LOCK_FILE).exists()
        with held_alone(tmp_path / "run"):
            pass
    finally:
        os.kill(grandchild, signal.SIGKILL)
        os.close(told)
        os.close(tell)


def test_a_folder_that_nothing_was_written_to_is_gone_again_but_not_one_that_was_there(tmp_path):
    with held_alone(tmp_path / "new"):
        pass
    (tmp_path / "old").mkdir()
    with held_alone(tmp_path / "old"):
        pass
    assert os.listdir(tmp_path) == ["old"]


def test_a_file_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="is a file, give the name of a folder"), held_alone(tmp_path / "run"):
        pass


def test_of_many_that_start_at_once_one_is_let_in(tmp_path):
    start, go = os.pipe()
    children = []
    for _ in range(6):
        children.append(fork())
        if children[-1] == 0:
            os.close(go)
            os.read(start, 1)  # ends for all at once, when the last one that could write is closed
            try:
                with held_alone(tmp_path / "run"):
                    time.sleep(1)
                os._exit(0)
            except ValueError:
                os._exit(1)
    os.close(start)
    os.close(go)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert sorted(codes) == [0, 1, 1, 1, 1, 1]
