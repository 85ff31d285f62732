import errno
import os

import pytest
import torch
from safetensors.torch import save_file

from hf_maskattn.checkpoints.whole_files import is_write_failure, reason, scratch_of, write_whole

FULL = "/dev/full"  # a file for which there is never room, on Linux


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "metrics.json"
    for text in ("old, and longer", "new é"):
        write_whole(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_there_survives_an_end_in_the_middle(tmp_path, monkeypatch):
    path = tmp_path / "recipe.yaml"
    write_whole(path, "old")

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert scratch_of(path).read_text() == "new"


@pytest.mark.skipif(not os.path.exists(FULL), reason=f"there is no {FULL}")
def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("old")
    scratch_of(path).symlink_to(FULL)
    with pytest.raises(OSError, match=r"metrics\.json could not be written: No space left on device\."):
        write_whole(path, "new")
    assert path.read_text() == "old"


@pytest.mark.skipif(not os.path.exists(FULL), reason=f"there is no {FULL}")
def test_what_torch_says_of_a_full_disk_is_known():
    with pytest.raises(RuntimeError) as raised:
        torch.save({"a": torch.zeros(9)}, FULL)
    assert is_write_failure(raised.value)


def test_a_file_that_cannot_be_made_by_safetensors_is_known(tmp_path):
    with pytest.raises(Exception, match="os error") as raised:
        save_file({"a": torch.zeros(2)}, tmp_path / "no folder" / "model.safetensors")
    assert is_write_failure(raised.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), ValueError("no"), ConnectionError("no network")])
def test_other_errors_are_not_failures_to_write(error):
    assert not is_write_failure(error)


def test_the_reason_is_a_few_words():
    assert reason(OSError(errno.ENOSPC, "No space left on device", "/a/b")) == "No space left on device"
    assert reason(RuntimeError("one\n two. ")) == "one two"
