import os
import re
import signal
import warnings
from contextlib import suppress

import pytest

from hf_maskattn.checkpoints.checkpoints import write_manifest
from hf_maskattn.checkpoints.run_folder import (
    LOCK_FILE,
    is_finished,
    lock_run_folder,
    mark_finished,
    mark_unfinished,
    remove_run,
    require_empty,
    require_run,
)


def write(folder, names):
    """Write empty files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")


def list_files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_require_empty_accepts_new_empty_and_locked_folder(tmp_path):
    require_empty(tmp_path)
    require_empty(tmp_path / "new")
    (tmp_path / LOCK_FILE).write_text("")
    require_empty(tmp_path)


def test_require_empty_rejects_any_file(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"must be an empty folder, got .* with --resume, replace it with --overwrite"):
        require_empty(tmp_path)


@pytest.mark.parametrize("names", [[], [LOCK_FILE], ["recipe.yaml.part"], ["recipe.yaml", "a"], ["checkpoint-3/x", "a"]])
def test_require_run_accepts_folder_of_run(tmp_path, names):
    write(tmp_path, names)
    require_run(tmp_path)
    require_run(tmp_path / "new")


@pytest.mark.parametrize("name", ["README.md", "config.json", "losses.py", "metrics.json", "checkpoint-best/x", "checkpoint-3"])
def test_require_run_rejects_other_folder(tmp_path, name):
    write(tmp_path, [name])
    words = f"training.output_dir must be the folder of a run or empty, got {str(tmp_path)!r}, which has no recipe.yaml"
    with pytest.raises(ValueError, match=re.escape(words)):
        require_run(tmp_path)


def test_remove_run_removes_only_what_a_run_writes(tmp_path):
    mine = ["notes.txt", "my_model.py", "checkpoint-best", "data/train.jsonl", "checkpoint-3/.keep", "config.json.bak"]
    written = ["config.json", "generation_config.json", "model.safetensors", "metrics.json", "modeling_maskattn.py"]
    written += ["README.md", "checkpoint-3/x", "manifest.json", "recipe.yaml", "recipe.yaml.part"]
    written += ["gru_gradient.py", "softmax.py", "checkpoint-3/layout.py"]  # code of earlier versions
    write(tmp_path, mine + written)
    remove_run(tmp_path)
    assert list_files(tmp_path) == ["checkpoint-best", "config.json.bak", "data/train.jsonl", "my_model.py", "notes.txt"]


@pytest.mark.parametrize("mine", [[], ["runs/Jan31_23-59-59_my_pc/notes.txt", "runs/other/events.out.tfevents.1.my_pc.2.0"]])
def test_remove_run_removes_logs_and_their_empty_folders(tmp_path, mine):
    logs = [f"runs/{start}_my_pc/events.out.tfevents.1.my_pc.2.0" for start in ("Jan31_23-59-59", "Feb01_00-00-00")]
    write(tmp_path, logs + mine)
    remove_run(tmp_path)
    assert list_files(tmp_path) == mine
    assert (tmp_path / "runs").exists() == bool(mine)
    assert not (tmp_path / logs[1]).parent.exists()


def test_remove_run_killed_keeps_recipe(tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").write_text("")
    (tmp_path / "checkpoint-3").mkdir()
    write_manifest(tmp_path / "checkpoint-3")

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_maskattn.checkpoints.run_folder.remove_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_run(tmp_path)
    assert (tmp_path / "recipe.yaml").exists()


def test_is_finished_needs_metrics_weights_and_mark(tmp_path):
    for name in ("metrics.json", "model.safetensors", "config.json"):
        assert not is_finished(tmp_path)
        (tmp_path / name).write_text("as written")
    assert not is_finished(tmp_path)
    mark_finished(tmp_path)
    assert is_finished(tmp_path)
    (tmp_path / "config.json").write_text("edited by hand")
    assert is_finished(tmp_path)
    (tmp_path / "model.safetensors").write_text("as writteN")
    with pytest.raises(ValueError, match=r"finished, but the checksum of model\.safetensors .* remove .*metrics\.json"):
        is_finished(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert not is_finished(tmp_path)


def test_mark_unfinished(tmp_path):
    for name in ("metrics.json", "model.safetensors"):
        (tmp_path / name).write_text("")
    mark_finished(tmp_path)
    mark_unfinished(tmp_path)
    (tmp_path / "metrics.json").write_text("")
    assert not is_finished(tmp_path)


def test_remove_run_of_missing_folder(tmp_path):
    remove_run(tmp_path / "nowhere")


LOCKED = r"Another run is using .*run\. Wait until it ends, stop it, or choose another folder with training\."


def fork():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, where there may be threads
        return os.fork()


def test_lock_run_folder_is_exclusive_and_released(tmp_path):
    for _ in range(2):
        with lock_run_folder(tmp_path / "run"):
            with pytest.raises(ValueError, match=LOCKED), lock_run_folder(tmp_path / "run"):
                pass
            (tmp_path / "run" / "recipe.yaml").write_text("")
        assert os.listdir(tmp_path / "run") == ["recipe.yaml"]


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")])
@pytest.mark.parametrize("place", ["pathlib.Path.mkdir", "filelock.FileLock.acquire"])
def test_lock_run_folder_names_folder_it_cannot_write(tmp_path, monkeypatch, place, error):
    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(place, refuse)
    words = rf"^training\.output_dir must be .* got '{tmp_path}/run' \({error.strerror}\)\. Choose another one with"
    with pytest.raises(OSError, match=words), lock_run_folder(tmp_path / "run"):
        pass


def test_lock_run_folder_ends_with_killed_process(tmp_path):
    """Its children may live longer: workers of a dataloader notice only after seconds that a run was killed."""
    reader, writer = os.pipe()
    child = fork()
    if child == 0:
        with lock_run_folder(tmp_path / "run"):
            if fork() == 0:
                os.write(writer, str(os.getpid()).encode())  # by then it has let go of what it inherited
            signal.pause()
    grandchild = int(os.read(reader, 20))
    try:
        with pytest.raises(ValueError, match=LOCKED), lock_run_folder(tmp_path / "run"):
            pass
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert (tmp_path / "run" / LOCK_FILE).exists()
        with lock_run_folder(tmp_path / "run"):
            pass
    finally:
        for process in (child, grandchild):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        os.close(reader)
        os.close(writer)


def test_lock_run_folder_removes_new_empty_folder(tmp_path):
    with lock_run_folder(tmp_path / "new"):
        pass
    (tmp_path / "old").mkdir()
    with lock_run_folder(tmp_path / "old"):
        pass
    assert os.listdir(tmp_path) == ["old"]


def test_lock_run_folder_rejects_file(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="must be a folder, got the file"), lock_run_folder(tmp_path / "run"):
        pass


def test_lock_run_folder_admits_one_of_many_processes(tmp_path):
    start, go = os.pipe()
    hold, release = os.pipe()
    results, report = os.pipe()
    children = []
    for _ in range(6):
        children.append(fork())
        if children[-1] == 0:
            os.close(go)
            os.close(release)
            os.read(start, 1)  # returns for all at once, when the last writer is closed
            try:
                with lock_run_folder(tmp_path / "run"):
                    os.write(report, b"1")
                    os.read(hold, 1)
            except ValueError:
                os.write(report, b"0")
            finally:
                os._exit(0)
    for end in (start, go, report):
        os.close(end)
    answers = b"".join(os.read(results, 1) for _ in children)
    os.close(release)
    for child in children:
        os.waitpid(child, 0)
    for end in (hold, results):
        os.close(end)
    assert sorted(answers) == sorted(b"000001")
