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
    clean_checkpoints,
    find_damage,
    find_last_complete_checkpoint,
    find_resume_checkpoint,
    is_complete,
    is_resumable,
    is_write_error,
    list_checkpoints,
    partial_path,
    remove_checkpoint,
    remove_manifest,
    rotate_checkpoints,
    summarize_error,
    write_atomically,
    write_manifest,
)


@pytest.fixture
def run(tmp_path):
    """Write complete checkpoints of a run, and return its folder."""

    def write(*steps, resumable=True):
        for step in steps:
            folder = tmp_path / "run" / f"checkpoint-{step}"
            folder.mkdir(parents=True)
            (folder / "optimizer.pt").write_bytes(b"moments" * 9)
            write_manifest(folder, resumable=resumable)
        return tmp_path / "run"

    return write


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def steps_left(folder):
    return sorted(list_checkpoints(folder).values())


def test_find_resume_checkpoint_sorts_by_step(run):
    folder = run(8, 100, 20)
    (folder / "checkpoint-notes").mkdir()
    (folder / "checkpoint-300").write_text("a file")
    assert list(list_checkpoints(folder).values()) == [100, 20, 8]
    assert find_resume_checkpoint(folder) == folder / "checkpoint-100"


def test_find_resume_checkpoint_skips_damage_with_a_warning(run, caplog):
    folder = run(8, 12, 16)
    flip(folder / "checkpoint-16" / "optimizer.pt")
    remove_manifest(folder / "checkpoint-12")
    with caplog.at_level(logging.WARNING):
        assert find_resume_checkpoint(folder) == folder / "checkpoint-8"
    assert caplog.messages == [
        f"{folder}/checkpoint-16 cannot be used (the checksum of optimizer.pt does not match). Resuming from "
        f"{folder}/checkpoint-8.",
        f"{folder}/checkpoint-12 cannot be used (it is incomplete: there is no manifest.json). Resuming from "
        f"{folder}/checkpoint-8.",
    ]


def test_find_resume_checkpoint_without_complete_one(run, tmp_path, caplog):
    folder = run(8)
    flip(folder / "checkpoint-8" / "optimizer.pt")
    assert find_resume_checkpoint(folder) is None
    assert "There is no complete checkpoint to resume from" in caplog.text
    assert find_resume_checkpoint(tmp_path / "nowhere") is None


def test_find_resume_checkpoint_rejects_model_only(run, caplog):
    folder = run(12, resumable=False)
    words = r"checkpoint-12 was saved with training\.save_only_model=true, .* model\.pretrained=.*checkpoint-12 .*--overwrite"
    with pytest.raises(ValueError, match=words):
        find_resume_checkpoint(folder)
    run(8)
    assert find_resume_checkpoint(folder) == folder / "checkpoint-8"
    assert "checkpoint-12 cannot be resumed (it was saved with training.save_only_model=true). Resuming" in caplog.text


def test_find_last_complete_checkpoint_does_not_verify(run):
    folder = run(8, 12)
    flip(folder / "checkpoint-8" / "optimizer.pt")
    remove_manifest(folder / "checkpoint-12")
    assert find_last_complete_checkpoint(folder) == folder / "checkpoint-8"
    assert find_last_complete_checkpoint(folder / "checkpoint-8") is None


def test_remove_checkpoint_killed_leaves_incomplete_one(run, monkeypatch):
    folder = run(8)

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_checkpoint(folder / "checkpoint-8")
    assert find_resume_checkpoint(folder) is None


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
def test_rotate_checkpoints_keeps_newest_and_best(run, limit, best, left):
    folder = run(4, 8, 12, 16)
    rotate_checkpoints(folder / "checkpoint-16", limit, None if best is None else folder / f"checkpoint-{best}")
    assert steps_left(folder) == left


def test_rotate_checkpoints_removes_incomplete_and_later_ones_first(run):
    folder = run(4, 8, 12, 16)
    remove_manifest(folder / "checkpoint-8")
    rotate_checkpoints(folder / "checkpoint-12", 2, None)
    assert steps_left(folder) == [4, 12]


def test_rotate_checkpoints_warns_if_it_cannot_remove(run, monkeypatch, caplog):
    folder = run(4, 8)

    def refuse(path):
        raise PermissionError("not yours")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    rotate_checkpoints(folder / "checkpoint-8", 1, None)
    assert f"The old checkpoint {folder}/checkpoint-4 could not be removed: not yours." in caplog.text


@pytest.fixture
def folder(tmp_path):
    """A complete folder with files of any name, one of them in a subfolder."""
    (tmp_path / "shards").mkdir()
    for name, content in (("a.bin", b"0123456789"), ("shards/rank0", b"weights" * 50), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
    write_manifest(tmp_path)
    return tmp_path


def test_find_damage_of_complete_folder(folder):
    assert find_damage(folder) is None
    assert is_complete(folder)
    assert is_resumable(folder)
    assert set(json.loads((folder / MANIFEST_FILE).read_text())["files"]) == {"a.bin", "shards/rank0", "empty"}


def test_find_damage_finds_every_flipped_bit(folder):
    for name in ("a.bin", "shards/rank0"):
        content = (folder / name).read_bytes()
        for place in range(0, len(content), 7):
            flipped = bytearray(content)
            flipped[place] ^= 1 << place % 8
            (folder / name).write_bytes(flipped)
            assert find_damage(folder) == f"the checksum of {name} does not match"
        (folder / name).write_bytes(content)
    assert find_damage(folder) is None


def test_find_damage_finds_flipped_bits_of_manifest(folder):
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


def test_find_damage_names_truncated_longer_and_missing_files(folder):
    (folder / "a.bin").write_bytes(b"01234")
    assert find_damage(folder) == "a.bin has 5 bytes, expected 10"
    (folder / "a.bin").write_bytes(b"01234567890")
    assert find_damage(folder) == "a.bin has 11 bytes, expected 10"
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
def test_find_damage_of_invalid_manifest(folder, content):
    (folder / MANIFEST_FILE).write_text(content)
    assert find_damage(folder) == "manifest.json is damaged"


def test_find_damage_of_unreadable_file(folder, monkeypatch):
    monkeypatch.setattr(
        "hf_maskattn.checkpoints.checkpoints._hash_file", lambda path: os.open(folder / "a.bin" / "x", os.O_RDONLY)
    )
    assert find_damage(folder) == "a.bin cannot be read: Not a directory"


def test_find_damage_without_manifest(folder):
    remove_manifest(folder)
    assert find_damage(folder) == "it is incomplete: there is no manifest.json"
    remove_manifest(folder)


def test_write_manifest_does_not_list_partial_manifest(folder):
    (folder / f"{MANIFEST_FILE}.part").write_text("{")
    write_manifest(folder, resumable=False)
    assert find_damage(folder) is None
    assert not is_resumable(folder)


def test_write_manifest_of_selected_files(folder):
    write_manifest(folder, [folder / "a.bin"])
    (folder / "shards" / "rank0").unlink()
    assert find_damage(folder) is None


def test_write_manifest_of_read_only_file(folder, monkeypatch):
    # Root may open any file for writing, so the mode of the file would prove nothing.
    opened = []
    sync = os.fsync
    in_folder = {path.stat().st_ino for path in folder.rglob("*")}

    def noting(descriptor):
        if os.fstat(descriptor).st_ino in in_folder - {folder.stat().st_ino}:
            opened.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)
        sync(descriptor)

    monkeypatch.setattr("hf_maskattn.checkpoints.checkpoints.os.fsync", noting)
    (folder / "a.bin").chmod(0o444)
    write_manifest(folder)
    assert opened == [os.O_RDONLY] * 3
    assert find_damage(folder) is None


FULL = "/dev/full"  # a file that is always full, on Linux


def test_write_atomically_replaces_file(tmp_path):
    path = tmp_path / "metrics.json"
    for text in ("old, and longer", "new é"):
        write_atomically(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


def test_write_atomically_killed_keeps_old_file(tmp_path, monkeypatch):
    path = tmp_path / "recipe.yaml"
    write_atomically(path, "old")

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert partial_path(path).read_text() == "new"


@pytest.mark.skipif(not os.path.exists(FULL), reason=f"no {FULL}")
def test_write_atomically_names_file_on_full_disk(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("old")
    partial_path(path).symlink_to(FULL)
    with pytest.raises(OSError, match=r"metrics\.json could not be written: No space left on device\."):
        write_atomically(path, "new")
    assert path.read_text() == "old"


@pytest.mark.skipif(not os.path.exists(FULL), reason=f"no {FULL}")
def test_is_write_error_of_torch():
    with pytest.raises(RuntimeError) as raised:
        torch.save({"a": torch.zeros(100_000)}, FULL)  # torch 2.8 ignores errors of smaller files
    assert is_write_error(raised.value)


def test_is_write_error_of_safetensors(tmp_path):
    with pytest.raises(Exception, match="os error") as raised:
        save_file({"a": torch.zeros(2)}, tmp_path / "no folder" / "model.safetensors")
    assert is_write_error(raised.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), ValueError("no"), ConnectionError("no network")])
def test_is_write_error_is_false_for_other_errors(error):
    assert not is_write_error(error)


def test_summarize_error():
    assert summarize_error(OSError(errno.ENOSPC, "No space left on device", "/a/b")) == "No space left on device"
    assert summarize_error(RuntimeError("one\n two. ")) == "one two"


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [
        ("best_and_last", 20, [20, 100]),
        ("best_and_last", None, [100]),
        ("best_and_last", 100, [100]),
        ("all", 20, [8, 20, 100]),
        ("none", 20, []),
    ],
)
def test_clean_checkpoints(run, keep, best, left):
    folder = run(8, 20, 100)
    clean_checkpoints(folder, keep, best and folder / f"checkpoint-{best}")
    assert steps_left(folder) == left


def test_clean_checkpoints_keeps_the_last_complete_one(run):
    folder = run(8, 20, 100)
    remove_manifest(folder / "checkpoint-100")
    clean_checkpoints(folder, "best_and_last", None)
    assert steps_left(folder) == [20]
