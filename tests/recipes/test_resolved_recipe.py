import os
import shutil

import pytest
import yaml

from hf_maskattn.recipes.arguments import TASKS
from hf_maskattn.recipes.recipe import read_recipe
from hf_maskattn.recipes.resolved_recipe import changed_keys, resolve_recipe, write_recipe
from tests.training import toy_recipe


@pytest.mark.parametrize("task", TASKS)
def test_a_resolved_recipe_is_read_again_as_the_same(tmp_path, task):
    recipe = read_recipe(toy_recipe.write_recipe(tmp_path, task))
    write_recipe(recipe, tmp_path / "recipe.yaml")
    again = read_recipe(tmp_path / "recipe.yaml")
    assert resolve_recipe(again) == resolve_recipe(recipe)
    assert again.model.config["num_attention_heads"] == 1
    assert changed_keys(recipe, tmp_path / "recipe.yaml") == {}


def test_a_resolved_recipe_of_a_pretrained_model_is_read_again(tmp_path):
    path = toy_recipe.write_recipe(tmp_path)
    lines = [line for line in path.read_text().splitlines(True) if "tokenizer" not in line and "vocab_size" not in line]
    path.write_text("".join(lines))
    recipe = read_recipe(path, ["model.pretrained=somewhere"])
    write_recipe(recipe, tmp_path / "recipe.yaml")
    assert resolve_recipe(read_recipe(tmp_path / "recipe.yaml")) == resolve_recipe(recipe)


@pytest.mark.parametrize("task", ["text-classification", "fill-mask", "text2text-generation"])
def test_a_resolved_recipe_of_a_stream_is_read_again(tmp_path, task):
    recipe = read_recipe(toy_recipe.write_recipe(tmp_path, task), ["data.streaming=true", "training.max_steps=5"])
    write_recipe(recipe, tmp_path / "recipe.yaml")
    assert resolve_recipe(read_recipe(tmp_path / "recipe.yaml")) == resolve_recipe(recipe)
    assert resolve_recipe(recipe)["data"]["shuffle_buffer"] == 10_000
    other = read_recipe(tmp_path / "recipe.yaml", ["data.shuffle_buffer=3"])
    assert changed_keys(other, tmp_path / "recipe.yaml") == {"data.shuffle_buffer": (10_000, 3)}


def test_changes_are_told_with_old_and_new_value(tmp_path):
    path = toy_recipe.write_recipe(tmp_path)
    write_recipe(read_recipe(path), tmp_path / "recipe.yaml")
    changed = read_recipe(path, ["model.hidden_size=10", "training.seed=7", "training.output_dir=elsewhere"])
    assert changed_keys(changed, tmp_path / "recipe.yaml") == {
        "model.hidden_size": (8, 10),
        "training.seed": ("nothing", 7),
    }


def write_relative(folder, monkeypatch, **groups):
    """A recipe whose paths are relative, as people write them, read where they hold."""
    monkeypatch.chdir(folder)
    content = yaml.safe_load(toy_recipe.write_recipe(folder).read_text())
    content["data"] |= {key: os.path.relpath(value) for key, value in content["data"].items() if key.endswith("_file")}
    content["training"]["output_dir"] = "runs/toy"
    for group, values in groups.items():
        content[group] |= values
    (folder / "toy.yaml").write_text(yaml.safe_dump({group: drop_none(values) for group, values in content.items()}))
    recipe = read_recipe("toy.yaml")
    (folder / "runs" / "toy").mkdir(parents=True)
    write_recipe(recipe, folder / "runs" / "toy" / "recipe.yaml")
    return recipe


def drop_none(values):
    return {key: value for key, value in values.items() if value is not None}


def test_a_resolved_recipe_names_its_files_from_any_directory(tmp_path, monkeypatch):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "elsewhere").mkdir()
    write_relative(tmp_path, monkeypatch, data={"tokenizer": "tokenizer", "vocab_size": None, "test_file": "parts/*.jsonl"})
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = read_recipe("../runs/toy/recipe.yaml")
    assert again.data.train_file == str(tmp_path / "train.jsonl")
    assert again.data.test_file == str(tmp_path / "parts" / "*.jsonl")
    assert again.data.tokenizer == str(tmp_path / "tokenizer")
    assert again.training["output_dir"] == str(tmp_path / "runs" / "toy")
    assert changed_keys(again, tmp_path / "runs" / "toy" / "recipe.yaml") == {}


def test_names_that_are_no_files_here_stay_as_they_are(tmp_path, monkeypatch):
    (tmp_path / "word").mkdir()
    (tmp_path / "cldr-languages").mkdir()
    files = dict.fromkeys(("train_file", "validation_file", "test_file"))
    recipe = write_relative(tmp_path, monkeypatch, data={"source": "cldr-languages", **files})
    assert resolve_recipe(recipe)["data"]["source"] == "cldr-languages"
    assert resolve_recipe(recipe)["data"]["tokenizer"] == "word"
    recipe = read_recipe("toy.yaml", ["data.source=user/corpus"])
    assert resolve_recipe(recipe)["data"]["source"] == "user/corpus"


def test_a_run_of_an_earlier_version_has_the_same_files(tmp_path, monkeypatch):
    """It kept paths as they were written."""
    recipe = write_relative(tmp_path, monkeypatch)
    stored = tmp_path / "runs" / "toy" / "recipe.yaml"
    stored.write_text(stored.read_text().replace(f"{tmp_path}/", ""))
    assert "train_file: train.jsonl" in stored.read_text()
    assert changed_keys(recipe, stored) == {}
    assert changed_keys(read_recipe("toy.yaml", [f"data.train_file={tmp_path}/train.jsonl"]), stored) == {}
    assert set(changed_keys(read_recipe("toy.yaml", ["data.train_file=test.jsonl"]), stored)) == {"data.train_file"}


@pytest.mark.parametrize("keep", [True, False], ids=["copied", "moved"])
def test_a_project_in_another_place_has_the_same_files(tmp_path, monkeypatch, keep):
    (tmp_path / "project").mkdir()
    write_relative(tmp_path / "project", monkeypatch)
    shutil.copytree(tmp_path / "project", tmp_path / "other")
    monkeypatch.chdir(tmp_path / "other")
    if not keep:
        shutil.rmtree(tmp_path / "project")
    stored = tmp_path / "other" / "runs" / "toy" / "recipe.yaml"
    assert changed_keys(read_recipe("toy.yaml"), stored) == {}
    assert set(changed_keys(read_recipe("toy.yaml", ["data.train_file=test.jsonl"]), stored)) == {"data.train_file"}


def test_a_run_folder_in_another_place_has_the_same_files(tmp_path, monkeypatch):
    recipe = write_relative(tmp_path, monkeypatch)
    (tmp_path / "runs" / "toy").rename(tmp_path / "toy")
    assert changed_keys(recipe, tmp_path / "toy" / "recipe.yaml") == {}
