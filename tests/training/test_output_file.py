import pytest

from hf_maskattn.training.output_file import require_place


def test_a_place_for_a_file(tmp_path):
    require_place(tmp_path / "new", overwrite=False)
    (tmp_path / "old").write_text("")
    require_place(tmp_path / "old", overwrite=True)
    with pytest.raises(ValueError, match=r"old exists: replace it with --overwrite, or name another file"):
        require_place(tmp_path / "old", overwrite=False)
    with pytest.raises(ValueError, match=r"is a folder, give the name of a file"):
        require_place(tmp_path, overwrite=True)
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere to write file to: make it, or name another"):
        require_place(tmp_path / "nowhere" / "file", overwrite=True)
