import fcntl
import json
import os

import pytest

from hf_maskattn.checkpoints.manifest import MANIFEST_FILE, find_damage, is_resumable, is_sealed, seal, unseal


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
    monkeypatch.setattr("hf_maskattn.checkpoints.manifest._sha256", lambda path: os.open(folder / "a.bin" / "x", os.O_RDONLY))
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

    monkeypatch.setattr("hf_maskattn.checkpoints.manifest.os.fsync", noting)
    (folder / "a.bin").chmod(0o444)
    seal(folder)
    assert opened == [os.O_RDONLY] * 3
    assert find_damage(folder) is None
