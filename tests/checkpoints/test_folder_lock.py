import os
import signal
import time
import warnings

import pytest

from hf_maskattn.checkpoints.folder_lock import LOCK_FILE, held_alone

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
