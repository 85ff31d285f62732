import pytest

from hf_maskattn.data.tokenizer_training import train_tokenizer
from hf_maskattn.training.recipe import read_recipe
from hf_maskattn.training.task_data import evaluation_data, training_data
from tests.training.toy_recipe import SIZES, write_recipe


def load(tmp_path, task="text-classification", *overrides, **groups):
    return training_data(read_recipe(write_recipe(tmp_path, task, **groups), overrides), seed=0)


def test_texts_become_inputs_with_labels(tmp_path):
    data = load(tmp_path)
    assert {name: split.num_rows for name, split in data.splits.items()} == SIZES
    assert data.labels == ["cat", "dog"]
    assert set(data.splits["train"].column_names) == {"input_ids", "attention_mask", "labels"}


def test_tagged_words_are_joined_where_there_is_no_text(tmp_path):
    data = load(tmp_path, "token-classification")
    assert data.labels == ["B-SOUND", "O"]
    assert len(data.splits["train"][0]["labels"]) == len(data.splits["train"][0]["input_ids"])


def test_the_text_of_tagged_words_is_used_where_there_is_one(tmp_path):
    def make(row):
        return {**row, "text": "!".join(row["tokens"])}

    data = load(tmp_path, "token-classification", make=make)
    assert "!" in data.tokenizer.get_vocab()


def test_masked_language_modeling_needs_text_only(tmp_path):
    data = load(tmp_path, "fill-mask", make=lambda row: {"text": row["text"]})
    assert data.labels is None
    assert set(data.splits["train"].column_names) == {"input_ids", "attention_mask"}


def test_texts_are_cut_and_the_tokenizer_knows_it(tmp_path):
    data = load(tmp_path, "text-classification", "data.max_length=3")
    assert max(len(row) for row in data.splits["train"]["input_ids"]) == 3
    assert data.tokenizer.model_max_length == 3


@pytest.mark.parametrize(("limit", "expected"), [(7, 7), (int(1e30), 512)])
def test_a_loaded_tokenizer_keeps_its_limit_if_it_has_one(tmp_path, limit, expected):
    tokenizer = train_tokenizer(["meow woof"], kind="char", vocab_size=40, max_length=7)
    tokenizer.model_max_length = limit
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    path = write_recipe(tmp_path)
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "vocab_size" not in line))
    data = training_data(read_recipe(path, [f"data.tokenizer={tmp_path / 'tokenizer'}"]), seed=0)
    assert data.tokenizer.model_max_length == expected
    assert data.tokenizer.get_vocab() == tokenizer.get_vocab()


def test_a_missing_column_is_told(tmp_path):
    with pytest.raises(ValueError, match="no column 'body'"):
        load(tmp_path, "text-classification", "data.text_column=body")


def test_nothing_to_train_on_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"there is nothing to train on: set data\.source"):
        load(tmp_path, "text-classification", "data.train_file=")


def test_labels_of_an_existing_model_keep_their_numbers(tmp_path):
    data = load(tmp_path)
    recipe = read_recipe(write_recipe(tmp_path))
    turned = evaluation_data(recipe, 0, "test", data.tokenizer, ["dog", "cat"]).splits["test"]["labels"]
    assert [1 - label for label in turned] == list(data.splits["test"]["labels"])
