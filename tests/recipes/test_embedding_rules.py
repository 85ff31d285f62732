import pytest

from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.recipes.training_defaults import resolve_recipe, save_recipe
from tests.training.toy_recipe import write_recipe

MODEL, FILE = "model.embeddings=user/encoder", "model.embeddings=glove.6B.50d.txt.gz"


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("recipe"), data={"vocab_size": None})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([MODEL], r"data.tokenizer must be the tokenizer of model.embeddings=user/encoder, got 'word'. Remove it, or set"),
        ([FILE, "data.tokenizer="], r"data.tokenizer is missing. Set it to one of char, word"),
        ([FILE, "data.tokenizer=bpe"], r"data.tokenizer must be word with the word vectors of .*, got 'bpe'."),
        ([MODEL, "data.tokenizer=", "data.lowercase=true"], r"data.lowercase has no effect with the tokenizer user/encoder"),
        ([MODEL, "data.tokenizer=", "model.pretrained=user/model"], r"model.embeddings must not be set with model.pretrained"),
        ([FILE, "model.embeddings_kind=static"], r"model.embeddings_kind has no effect unless model.embeddings is a model"),
        (["model.embeddings_kind=input"], r"model.embeddings_kind has no effect unless model.embeddings is a model"),
        (["model.freeze_embeddings=true"], r"model.freeze_embeddings=True needs model.embeddings or model.pretrained"),
        ([FILE, "model.freeze_embeddings=0"], r"model.freeze_embeddings must be true, false or a number .* above 0, got 0."),
        (
            [FILE, "model.freeze_embeddings=2", "data.streaming=true", "training.max_steps=9"],
            r"model.freeze_embeddings=2 is not supported with data.streaming=true",
        ),
        (["model.embeddings_learning_rate=0"], r"model.embeddings_learning_rate must be above 0, got 0."),
        (
            [FILE, "model.freeze_embeddings=true", "model.embeddings_learning_rate=1e-3"],
            r"model.embeddings_learning_rate has no effect with model.freeze_embeddings=true",
        ),
        (["data.vocabulary=prune"], r"data.vocabulary=prune must not be set with this tokenizer: all its tokens occur in"),
        (
            ["data.tokenizer=", "model.pretrained=user/model", "data.vocabulary=prune"],
            r"data.vocabulary=prune must not be set with this tokenizer: it belongs to a pretrained model",
        ),
        (["model.freeze_embeddings=some"], r"model.freeze_embeddings must be true or false or a number, got 'some'."),
    ],
)
def test_settings_that_contradict_raise(recipe_file, overrides, message):
    with pytest.raises((TypeError, ValueError), match=message):
        load_recipe(recipe_file, overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        [MODEL, "data.tokenizer=", "model.embeddings_kind=static", "model.freeze_embeddings=2", "data.vocabulary=prune"],
        [MODEL, "data.tokenizer=user/tokenizer"],
        [FILE, "model.freeze_embeddings=true"],
        [FILE, "data.tokenizer=user/tokenizer", "data.vocabulary=prune"],
        ["data.tokenizer=", "model.pretrained=user/model", "model.freeze_embeddings=0.5"],
        ["model.embeddings_learning_rate=1e-3"],
        [],
    ],
)
def test_saved_recipe_is_the_same(recipe_file, tmp_path, overrides):
    recipe = load_recipe(recipe_file, overrides)
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert resolve_recipe(load_recipe(tmp_path / "recipe.yaml")) == resolve_recipe(recipe)


def test_saved_recipe_has_the_absolute_path_of_the_source(recipe_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.vec").write_text("a 1\n")
    resolved = resolve_recipe(load_recipe(recipe_file, ["model.embeddings=a.vec"]))
    assert resolved["model"]["embeddings"] == str(tmp_path / "a.vec")
    assert "embeddings_kind" not in resolved["model"]
