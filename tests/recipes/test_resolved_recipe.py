import pytest

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
