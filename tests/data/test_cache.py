from pathlib import Path

import pytest

from hf_maskattn.data.cache import cache_folder, check_free_space, fingerprint


def test_fingerprint_depends_on_content_and_boundaries(tmp_path: Path):
    file = tmp_path / "weights"
    file.write_bytes(b"ab")
    assert fingerprint("ab") == fingerprint(b"ab") == fingerprint(file)
    assert fingerprint("a", "b") != fingerprint("ab") != fingerprint("b", "a")


def test_cache_folder_is_separate_for_each_kind_and_key():
    folders = {cache_folder(kind, key) for kind in ("a", "b") for key in ("1", "2")}
    assert len(folders) == 4
    assert not any(folder.exists() for folder in folders)


def test_check_free_space_names_need_and_way_out(tmp_path: Path):
    check_free_space(tmp_path / "missing" / "folder", 1, "A cache")
    with pytest.raises(OSError, match=r"A cache needs .* MiB .* HF_HOME"):
        check_free_space(tmp_path / "missing", 2**60, "A cache")
