import logging
import shutil

import pytest

from hf_maskattn.checkpoints.checkpoints import (
    checkpoints_in,
    last_sealed_checkpoint,
    last_whole_checkpoint,
    remove_checkpoint,
    rotate,
)
from hf_maskattn.checkpoints.manifest import seal, unseal


@pytest.fixture
def run(tmp_path):
    """Writes checkpoints of a run, whole ones, and returns its folder."""

    def write(*steps, resumable=True):
        for step in steps:
            folder = tmp_path / "run" / f"checkpoint-{step}"
            folder.mkdir(parents=True)
            (folder / "optimizer.pt").write_bytes(b"moments" * 9)
            seal(folder, resumable=resumable)
        return tmp_path / "run"

    return write


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def steps_left(folder):
    return sorted(checkpoints_in(folder).values())


def test_the_newest_is_found_by_number_not_by_name(run):
    folder = run(8, 100, 20)
    (folder / "checkpoint-notes").mkdir()
    (folder / "checkpoint-300").write_text("a file")
    assert list(checkpoints_in(folder).values()) == [100, 20, 8]
    assert last_whole_checkpoint(folder) == folder / "checkpoint-100"


def test_damage_is_passed_over_with_a_warning_that_names_both(run, caplog):
    folder = run(8, 12, 16)
    flip(folder / "checkpoint-16" / "optimizer.pt")
    unseal(folder / "checkpoint-12")
    with caplog.at_level(logging.WARNING):
        assert last_whole_checkpoint(folder) == folder / "checkpoint-8"
    assert caplog.messages == [
        f"{folder}/checkpoint-16 cannot be used (optimizer.pt has other bytes than were written); going on from "
        f"{folder}/checkpoint-8.",
        f"{folder}/checkpoint-12 cannot be used (it was cut off while being written: there is no manifest.json); going on from "
        f"{folder}/checkpoint-8.",
    ]


def test_without_a_whole_checkpoint_there_is_none(run, tmp_path, caplog):
    folder = run(8)
    flip(folder / "checkpoint-8" / "optimizer.pt")
    assert last_whole_checkpoint(folder) is None
    assert "there is no whole checkpoint to go on from" in caplog.text
    assert last_whole_checkpoint(tmp_path / "nowhere") is None


def test_checkpoints_of_a_model_alone_are_refused_by_name(run, caplog):
    folder = run(12, resumable=False)
    words = r"checkpoint-12 was saved with training\.save_only_model=true, .* model\.pretrained=.*checkpoint-12 .*--overwrite"
    with pytest.raises(ValueError, match=words):
        last_whole_checkpoint(folder)
    run(8)
    assert last_whole_checkpoint(folder) == folder / "checkpoint-8"
    assert "checkpoint-12 cannot be resumed (it was saved with training.save_only_model=true); going on from" in caplog.text


def test_the_newest_that_was_written_to_its_end_is_found_without_reading_it(run):
    folder = run(8, 12)
    flip(folder / "checkpoint-8" / "optimizer.pt")
    unseal(folder / "checkpoint-12")
    assert last_sealed_checkpoint(folder) == folder / "checkpoint-8"
    assert last_sealed_checkpoint(folder / "checkpoint-8") is None


def test_what_is_left_of_a_checkpoint_while_it_is_removed_is_not_taken_for_a_whole_one(run, monkeypatch):
    folder = run(8)

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_checkpoint(folder / "checkpoint-8")
    assert last_whole_checkpoint(folder) is None


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [
        (None, None, [4, 8, 12, 16]),
        (0, None, [4, 8, 12, 16]),
        (2, None, [12, 16]),
        (2, 4, [4, 16]),
        (1, 4, [4, 16]),
        (1, 16, [16]),
        (3, 99, [8, 12, 16]),
        (9, 4, [4, 8, 12, 16]),
    ],
)
def test_the_oldest_go_and_the_best_stays(run, limit, best, left):
    folder = run(4, 8, 12, 16)
    rotate(folder / "checkpoint-16", limit, None if best is None else folder / f"checkpoint-{best}")
    assert steps_left(folder) == left


def test_half_ones_and_those_of_later_steps_go_before_any_whole_one(run):
    folder = run(4, 8, 12, 16)
    unseal(folder / "checkpoint-8")
    rotate(folder / "checkpoint-12", 2, None)
    assert steps_left(folder) == [4, 12]


def test_a_checkpoint_that_cannot_be_removed_is_told_and_no_reason_to_stop(run, monkeypatch, caplog):
    folder = run(4, 8)

    def refuse(path):
        raise PermissionError("not yours")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    rotate(folder / "checkpoint-8", 1, None)
    assert f"The old checkpoint {folder}/checkpoint-4 could not be removed: not yours." in caplog.text
