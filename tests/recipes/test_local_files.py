import pytest

from hf_maskattn.recipes.local_files import check_local_files
from hf_maskattn.recipes.recipe import load_recipe
from tests.training.toy_recipe import write_recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.train_file=nowhere.jsonl", r"^data\.train_file='nowhere\.jsonl': there is no such file, seen from .*\. Correct"),
        ("data.test_file=nowhere/a.csv", r"^data\.test_file='nowhere/a\.csv': there is no such file"),
        ("data.validation_file=part-*.jsonl", r"^data\.validation_file='part-\*\.jsonl': no file fits this pattern"),
    ],
)
def test_a_file_that_does_not_exist_is_named_with_its_key(tmp_path, override, message):
    recipe = load_recipe(write_recipe(tmp_path), [override])
    with pytest.raises(FileNotFoundError, match=message):
        check_local_files(recipe)


@pytest.mark.parametrize(
    "name", ["train.jsonl", "t*.jsonl", "**/train.jsonl", "[t]rain.jsonl", "a [b]", "a [b]/*.jsonl", "a [b]/x.jsonl"]
)
def test_files_and_patterns_that_exist_are_found(tmp_path, name):
    path = write_recipe(tmp_path)
    (tmp_path / "a [b]").mkdir()
    (tmp_path / "a [b]" / "x.jsonl").touch()
    check_local_files(load_recipe(path, [f"data.train_file={tmp_path / name}"]))


def test_only_the_splits_that_are_read_are_looked_for(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path), ["data.train_file=nowhere.jsonl"])
    check_local_files(recipe, ["test"])
