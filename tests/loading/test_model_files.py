import pytest
from huggingface_hub.utils import httpx

from hf_maskattn.loading import model_files
from hf_maskattn.loading.model_files import find_file, has_file, newest_checkpoint


def test_files_of_a_folder(tmp_path):
    (tmp_path / "there.json").write_text("{}")
    assert find_file(tmp_path, "there.json") == str(tmp_path / "there.json")
    assert has_file(str(tmp_path), "there.json")
    assert find_file(tmp_path, "none.json") is None
    assert not has_file(tmp_path, "none.json")


def test_what_is_unknown_for_want_of_the_hub_is_not_missing(tmp_path):
    assert find_file("owner/name", "config.json") is None
    with pytest.raises(OSError, match="We couldn't connect to"):
        has_file("owner/name", "config.json")


@pytest.mark.parametrize("function", [find_file, has_file])
def test_a_connection_that_breaks_off_is_named(monkeypatch, function):
    def broken(*arguments, **settings):
        raise httpx.RemoteProtocolError("Server disconnected")

    monkeypatch.setattr(model_files, "cached_file", broken)
    with pytest.raises(OSError, match=r"the Hub broke off when a\.json of owner/name was asked for: Server disconnected"):
        function("owner/name", "a.json")


def test_the_newest_checkpoint_with_a_model_is_found(tmp_path):
    assert newest_checkpoint(tmp_path / "nowhere") is None
    for name in ("checkpoint-90", "checkpoint-810", "checkpoint-9000", "checkpoint-last", "other-99999"):
        (tmp_path / name).mkdir()
        if name != "checkpoint-9000":  # cut off before its model was written
            (tmp_path / name / "config.json").write_text("{}")
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-810"
