import errno

import datasets
import pytest
from huggingface_hub import constants

from hf_maskattn.data.cache_directory import check_cache_after_failure
from hf_maskattn.data.loading import load_splits
from hf_maskattn.data.local_files import load_file


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text('{"text": "a", "label": "x"}\n')
    return tmp_path / "data"


@pytest.fixture
def unwritable(tmp_path, monkeypatch):
    """Below a file there can be no folder, whoever asks."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "file" / "datasets"))
    return tmp_path / "file" / "datasets"


WORDS = r"^HF_DATASETS_CACHE must be a directory that can be written to, got '{}' \(.*\)\. Set the variable HF_DATASETS_CACHE"


def test_a_file_is_not_blamed_for_the_cache(rows, unwritable):
    with pytest.raises(OSError, match=WORDS.format(unwritable)):
        load_file(rows / "train.jsonl", split="train")


def test_a_folder_is_not_blamed_for_the_cache(rows, unwritable):
    with pytest.raises(OSError, match=WORDS.format(unwritable)):
        load_splits(str(rows), validation_split=None, test_split=None)


def test_the_hub_is_not_blamed_for_its_cache(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(OSError, match=r"^HF_HUB_CACHE must be .*file.hub"):
        load_splits("user/corpus")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named(rows, monkeypatch, code):
    def fill(*args, **kwargs):
        try:
            raise OSError(code, "no room")
        except OSError as error:
            raise datasets.exceptions.DatasetGenerationError("An error occurred") from error

    monkeypatch.setattr(datasets.ArrowBasedBuilder, "download_and_prepare", fill)
    with pytest.raises(OSError, match=r"^HF_DATASETS_CACHE must be .* \(no room\)"):
        load_file(rows / "train.jsonl", split="train")


def test_another_failure_has_another_cause():
    check_cache_after_failure(ValueError("broken"))


def test_a_broken_file_is_still_named(rows):
    (rows / "train.jsonl").write_text("{")
    with pytest.raises(ValueError, match=r"train\.jsonl, line 1: broken JSON"):
        load_file(rows / "train.jsonl", split="train")
