import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, BertConfig, BertForSequenceClassification

from hf_maskattn.recipes.arguments import ModelArguments
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training.model_building import build_model
from hf_maskattn.training.train import train
from tests.training.toy_recipe import write_recipe


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    train(load_recipe(write_recipe(folder, "fill-mask", training={"num_train_epochs": 1})))
    return folder / "run"


def build(pretrained, labels, **arguments):
    tokenizer = AutoTokenizer.from_pretrained(pretrained)
    return build_model(ModelArguments(pretrained=str(pretrained), **arguments), tokenizer, labels)


def encoder(model):
    return {name: value for name, value in model.state_dict().items() if name.startswith("maskattn.")}


def test_the_encoder_is_taken_over_and_the_head_is_new(pretrained):
    language_model = build(pretrained, None, task="fill-mask")
    classifier = build(pretrained, ["a", "b", "c"], task="text-classification")
    assert classifier.config.num_labels == 3
    assert classifier.config.problem_type == "single_label_classification"
    before, after = encoder(language_model), encoder(classifier)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_model_is_fine_tuned_by_a_recipe(pretrained, tmp_path):
    path = write_recipe(tmp_path, training={"num_train_epochs": 1})
    lines = [line for line in path.read_text().splitlines(True) if "tokenizer" not in line and "vocab_size" not in line]
    path.write_text("".join(line for line in lines if "_size:" not in line))
    report = train(load_recipe(path, [f"model.pretrained={pretrained}", "model.hidden_dropout_prob=0.3"]))
    assert report.metrics["test"]["accuracy"] > 0
    assert f"Fine-tuned from {pretrained.name}" in (report.model_folder / "README.md").read_text()


def test_a_head_of_another_size_is_made_anew(pretrained, tmp_path):
    classifier = build(pretrained, ["a", "b", "c"], task="text-classification")
    classifier.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(pretrained).save_pretrained(tmp_path)
    assert build(tmp_path, ["x", "y"], task="text-classification").classifier.out_features == 2


def test_dropout_may_differ_from_the_pretrained_model_but_sizes_may_not(pretrained):
    model = build(pretrained, ["a", "b"], task="text-classification", config={"hidden_dropout_prob": 0.4})
    assert model.config.hidden_dropout_prob == 0.4
    with pytest.raises(ValueError, match=r"has other sizes than the recipe in .*recurrence.*: remove model\.hidden_size"):
        build(pretrained, ["a", "b"], task="text-classification", config={"hidden_size": 12})


def test_layers_that_the_pretrained_model_lacks_or_has_beyond_the_recipe_are_refused(pretrained, tmp_path):
    with pytest.raises(
        ValueError, match=r"has other sizes than the recipe in .*layers\.1.*: remove model\.num_hidden_layers\.$"
    ):
        build(pretrained, ["a", "b"], task="text-classification", config={"num_hidden_layers": 2})
    recipe = load_recipe(
        write_recipe(tmp_path, "text2text-generation", model={"decoder_layers": 2}, training={"num_train_epochs": 1})
    )
    folder = train(recipe).model_folder
    for key, value in (("encoder_layers", 2), ("decoder_layers", 1), ("share_embeddings", False)):
        with pytest.raises(ValueError, match=rf"has other sizes than the recipe in .*: remove model\.{key}\.$"):
            build(folder, None, task="text2text-generation", config={key: value})
    assert build(folder, None, task="text2text-generation", config={"decoder_layers": 2}).config.decoder_layers == 2


def test_models_of_other_kinds_are_refused(pretrained, tmp_path):
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=40)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(pretrained)
    with pytest.raises(ValueError, match=r"is a 'bert' model, for model\.task=text-classification only 'maskattn' models"):
        build_model(ModelArguments(task="text-classification", pretrained=str(tmp_path)), tokenizer, ["a"])


def test_a_model_that_writes_texts_is_built_for_its_tokenizer_and_writes_as_it_is_scored(tmp_path):
    recipe = load_recipe(
        write_recipe(tmp_path, "text2text-generation", training={"generation_num_beams": 3, "num_train_epochs": 1})
    )
    folder = train(recipe).model_folder
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    special = [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert special == [0, 2, 3]
    assert [model.config.pad_token_id, model.config.decoder_start_token_id, model.config.eos_token_id] == special
    assert model.config.vocab_size == len(tokenizer)
    longest = 1 + recipe.data.max_target_length
    assert (model.generation_config.num_beams, model.generation_config.max_length) == (3, longest)
    assert model.generate(**tokenizer("a b", return_tensors="pt"), min_length=longest).shape == (1, longest)


def test_a_model_of_another_family_is_refused(pretrained):
    with pytest.raises(
        ValueError, match=r"is a 'maskattn' model, for model\.task=text2text-generation only 'maskattn_rnnsearch'"
    ):
        build(pretrained, None, task="text2text-generation")
