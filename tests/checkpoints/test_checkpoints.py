import errno
import fcntl
import json
import logging
import os
import shutil

import pytest
import torch
from safetensors.torch import save_file

from hf_maskattn.checkpoints.checkpoints import (
    MANIFEST_FILE,
    checkpoints_in,
    find_damage,
    is_resumable,
    is_sealed,
    is_write_failure,
    last_sealed_checkpoint,
    last_whole_checkpoint,
    reason,
    remove_checkpoint,
    rotate,
    scratch_of,
    seal,
    unseal,
    write_whole,
)


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


@pytest.fixture
def folder(tmp_path):
    """A sealed folder with files of any name, one of them below another folder."""
    (tmp_path / "shards").mkdir()
    for name, content in (("a.bin", b"0123456789"), ("shards/rank0", b"weights" * 50), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
    seal(tmp_path)
    return tmp_path


def test_a_sealed_folder_has_no_damage(folder):
    assert find_damage(folder) is None
    assert is_sealed(folder)
    assert is_resumable(folder)
    assert set(json.loads((folder / MANIFEST_FILE).read_text())["files"]) == {"a.bin", "shards/rank0", "empty"}


def test_every_flipped_bit_of_every_file_is_found(folder):
    for name in ("a.bin", "shards/rank0"):
        content = (folder / name).read_bytes()
        for place in range(0, len(content), 7):
            flipped = bytearray(content)
            flipped[place] ^= 1 << place % 8
            (folder / name).write_bytes(flipped)
            assert find_damage(folder) == f"{name} has other bytes than were written"
        (folder / name).write_bytes(content)
    assert find_damage(folder) is None


def test_a_flipped_bit_of_the_manifest_is_found_or_does_no_harm(folder):
    manifest = folder / MANIFEST_FILE
    content = manifest.read_bytes()
    found = 0
    for place in range(0, len(content), 3):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 7
        manifest.write_bytes(flipped)
        damage = find_damage(folder)
        found += damage is not None
        # Between the names and numbers of JSON there are spaces and line ends, one of which may become another.
        assert damage is not None or chr(content[place]).isspace()
    assert found > len(content) / 3 * 0.8


def test_files_that_are_cut_off_longer_or_missing_are_named(folder):
    (folder / "a.bin").write_bytes(b"01234")
    assert find_damage(folder) == "a.bin has 5 bytes, 10 were written"
    (folder / "a.bin").write_bytes(b"01234567890")
    assert find_damage(folder) == "a.bin has 11 bytes, 10 were written"
    (folder / "a.bin").unlink()
    assert find_damage(folder) == "a.bin is missing"


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "{}", "[" * 9999),
        *('{"files": 5, "resumable": true}', '{"files": {"a": 1}, "resumable": true}'),
        *('{"files": {}, "resumable": 1}', '{"files": {}, "resumable": null}'),
        *(
            f'{{"files": {{"a.bin": {{"size": {size}, "sha256": {sha256}}}}}, "resumable": true}}'
            for size, sha256 in (*((size, '"00"') for size in ('"1"', "null", "1.5", "true")), ("10", "7"), ("10", "null"))
        ),
        *(
            f'{{"files": {{"{name}": {{"size": 10, "sha256": "00"}}}}, "resumable": true}}'
            for name in ("a\\u0000.bin", "a\\ud800.bin")
        ),
    ],
)
def test_a_broken_manifest_is_damage(folder, content):
    (folder / MANIFEST_FILE).write_text(content)
    assert find_damage(folder) == "manifest.json is damaged"


def test_a_file_that_cannot_be_read_is_damage(folder, monkeypatch):
    monkeypatch.setattr(
        "hf_maskattn.checkpoints.checkpoints._sha256", lambda path: os.open(folder / "a.bin" / "x", os.O_RDONLY)
    )
    assert find_damage(folder) == "a.bin cannot be read: Not a directory"


def test_without_a_manifest_a_folder_was_cut_off(folder):
    unseal(folder)
    assert find_damage(folder) == "it was cut off while being written: there is no manifest.json"
    unseal(folder)


def test_what_is_left_of_a_manifest_that_was_cut_off_is_not_listed(folder):
    (folder / f"{MANIFEST_FILE}.part").write_text("{")
    seal(folder, resumable=False)
    assert find_damage(folder) is None
    assert not is_resumable(folder)


def test_only_some_files_may_be_listed(folder):
    seal(folder, [folder / "a.bin"])
    (folder / "shards" / "rank0").unlink()
    assert find_damage(folder) is None


def test_a_file_that_may_only_be_read_is_listed(folder, monkeypatch):
    # Whoever is root may open anything for writing, so a mode alone would show nothing.
    opened = []
    sync = os.fsync
    in_folder = {path.stat().st_ino for path in folder.rglob("*")}

    def noting(descriptor):
        if os.fstat(descriptor).st_ino in in_folder - {folder.stat().st_ino}:
            opened.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)
        sync(descriptor)

    monkeypatch.setattr("hf_maskattn.checkpoints.checkpoints.os.fsync", noting)
    (folder / "a.bin").chmod(0o444)
    seal(folder)
    assert opened == [os.O_RDONLY] * 3
    assert find_damage(folder) is None


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
