import logging
import shutil
import struct

import pytest
import torch
from safetensors.torch import save_file

from hf_maskattn.training.checkpoints import is_whole_weights_file, last_whole_checkpoint, what_is_missing


@pytest.fixture
def whole(tmp_path):
    """A folder like the checkpoints of Trainer."""
    folder = tmp_path / "run" / "checkpoint-8"
    folder.mkdir(parents=True)
    save_file({"a": torch.zeros(3, 2), "b": torch.ones(4)}, folder / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"x": 1}, folder / name)
    (folder / "trainer_state.json").write_text('{"global_step": 8}')
    return folder


def cut(path, share=0.7):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def test_a_whole_checkpoint_misses_nothing(whole):
    assert what_is_missing(whole) is None
    assert last_whole_checkpoint(whole.parent) == whole


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"])
def test_a_missing_or_cut_off_file_is_found(whole, name):
    cut(whole / name)
    assert what_is_missing(whole) == name
    (whole / name).unlink()
    assert what_is_missing(whole) == name


def test_random_states_of_several_processes_are_all_checked(whole):
    (whole / "rng_state.pth").rename(whole / "rng_state_0.pth")
    shutil.copy(whole / "rng_state_0.pth", whole / "rng_state_1.pth")
    assert what_is_missing(whole) is None
    cut(whole / "rng_state_1.pth")
    assert what_is_missing(whole) == "rng_state_1.pth"


@pytest.mark.parametrize(
    "content", [b"", b"\x01", struct.pack("<Q", 2**60) + b"{}", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 2) + b"{x"]
)
def test_files_that_are_no_weights_are_not_whole(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert not is_whole_weights_file(path)


def test_a_partial_newer_checkpoint_is_passed_over_with_a_warning_that_names_both(whole, caplog):
    newer = shutil.copytree(whole, whole.parent / "checkpoint-12")
    cut(newer / "optimizer.pt")
    with caplog.at_level(logging.WARNING):
        assert last_whole_checkpoint(whole.parent) == whole
    assert caplog.messages == [f"{newer} is incomplete (optimizer.pt); going on from {whole}."]


def test_the_newest_is_found_by_number_not_by_name(whole):
    newest = shutil.copytree(whole, whole.parent / "checkpoint-100")
    shutil.copytree(whole, whole.parent / "checkpoint-20")
    (whole.parent / "checkpoint-notes").mkdir()
    assert last_whole_checkpoint(whole.parent) == newest


def test_without_a_whole_checkpoint_there_is_none(whole, tmp_path, caplog):
    (whole / "scheduler.pt").unlink()
    assert last_whole_checkpoint(whole.parent) is None
    assert "there is no whole checkpoint to go on from" in caplog.text
    assert last_whole_checkpoint(tmp_path / "nowhere") is None
