import io
import json
import logging
from itertools import cycle

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, BertConfig, BertForSequenceClassification

from hf_maskattn import MaskAttnConfig
from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.recipes.arguments import ModelArguments
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.recipes.training_defaults import training_arguments
from hf_maskattn.tasks import TASKS
from hf_maskattn.training.assembly import RunSummary, assemble, build_model, summarize
from hf_maskattn.training.train import train
from tests.training.toy_recipe import STREAM, WORDS, assemble_toy, load_toy, write_recipe

SIZES = {"embedding_size": 6, "hidden_size": 8, "attention_size": 8}


@pytest.fixture
def logged_warnings(tmp_path, caplog):
    """Assembles a text-to-text recipe and returns the warnings."""

    def run(*overrides):
        with caplog.at_level(logging.WARNING, logger="hf_maskattn"):
            assemble_toy(tmp_path, *overrides, task="text2text-generation", make=lambda row: {**row, "target": "A, b."})
        return [record.getMessage() for record in caplog.records if record.name.startswith("hf_maskattn")]

    return run


def test_references_that_the_tokenizer_cannot_reproduce_are_reported(logged_warnings):
    (message,) = logged_warnings()
    assert message.startswith("The tokenizer cannot reproduce the reference 'A, b.', which becomes 'A , b .', so that no gen")


def test_references_that_round_trip_are_not_reported(logged_warnings):
    assert logged_warnings("data.tokenizer=char") == []


def test_assemble_does_not_change_its_arguments(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path, "text2text-generation"))
    args = training_arguments(recipe)
    before = {**vars(args)}
    trainer = assemble(recipe, args).trainer
    assert {name: getattr(args, name) for name in before} == before
    assert trainer.args.include_for_metrics == ["inputs"]
    assert trainer.args.metric_for_best_model == "exact_match"


@pytest.mark.parametrize(("tag_scheme", "labels"), [(None, ["E-X", "I-X", "O", "S-X"]), ("BIOES", ["I-X", "O", "B-X"])])
def test_run_of_version_0_1_keeps_the_tags_of_its_data(tmp_path, tag_scheme, labels):
    MaskAttnConfig(tag_scheme=tag_scheme).save_pretrained(tmp_path / "checkpoint-1")
    tags = cycle([["S-X", "O"], ["I-X", "E-X"]])
    path = write_recipe(tmp_path, "token-classification", make=lambda row: {"tokens": ["a", "b"], "tags": next(tags)})
    recipe = load_recipe(path)
    assembly = assemble(recipe, training_arguments(recipe), tmp_path / "checkpoint-1")
    assert assembly.data.labels == labels
    assert assembly.trainer.model.config.tag_scheme == tag_scheme
    assert list(assembly.trainer.model.config.id2label.values()) == labels


def save_model(folder, task, **config):
    """Save a model with random weights and its tokenizer."""
    texts = [word for words in WORDS.values() for word in words]
    tokenizer = train_tokenizer(texts, kind="word", vocab_size=40, max_length=64, for_generation=TASKS[task].generates)
    build_model(ModelArguments(task=task, config={**SIZES, **config}), tokenizer, None).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("pretrained"), "fill-mask")


def build(pretrained, labels, **arguments):
    tokenizer = AutoTokenizer.from_pretrained(pretrained)
    return build_model(ModelArguments(pretrained=str(pretrained), **arguments), tokenizer, labels)


def encoder_weights(model):
    return {name: value for name, value in model.state_dict().items() if name.startswith("maskattn.")}


def test_pretrained_model_keeps_its_encoder_and_gets_a_new_head(pretrained):
    language_model = build(pretrained, None, task="fill-mask")
    classifier = build(pretrained, ["a", "b", "c"], task="text-classification")
    assert classifier.config.num_labels == 3
    assert classifier.config.problem_type == "single_label_classification"
    before, after = encoder_weights(language_model), encoder_weights(classifier)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_recipe_fine_tunes_a_pretrained_model(pretrained, tmp_path):
    model = {"pretrained": str(pretrained), "hidden_dropout_prob": 0.3, **dict.fromkeys(SIZES)}
    data = {"tokenizer": None, "vocab_size": None}
    report = train(load_toy(tmp_path, model=model, data=data, training={"num_train_epochs": 1}))
    assert report.metrics["test"]["accuracy"] > 0
    assert f"Fine-tuned from {pretrained.name}" in (report.model_folder / "README.md").read_text()


def test_head_with_other_labels_is_initialized(pretrained, tmp_path):
    classifier = build(pretrained, ["a", "b", "c"], task="text-classification")
    classifier.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(pretrained).save_pretrained(tmp_path)
    assert build(tmp_path, ["x", "y"], task="text-classification").classifier.out_features == 2


def test_pretrained_model_accepts_other_dropout_but_no_other_sizes(pretrained):
    model = build(pretrained, ["a", "b"], task="text-classification", config={"hidden_dropout_prob": 0.4})
    assert model.config.hidden_dropout_prob == 0.4
    with pytest.raises(ValueError, match=r"got other sizes of .*recurrence.*\. Remove model\.hidden_size"):
        build(pretrained, ["a", "b"], task="text-classification", config={"hidden_size": 12})


def test_other_layers_than_the_pretrained_model_raise(pretrained, tmp_path):
    with pytest.raises(ValueError, match=r"got other sizes of .*layers\.1.*\. Remove model\.num_hidden_layers\.$"):
        build(pretrained, ["a", "b"], task="text-classification", config={"num_hidden_layers": 2})
    folder = save_model(tmp_path, "text2text-generation", decoder_layers=2)
    for key, value in (("encoder_layers", 2), ("decoder_layers", 1), ("share_embeddings", False)):
        with pytest.raises(ValueError, match=rf"got other sizes of .*\. Remove model\.{key}\.$"):
            build(folder, None, task="text2text-generation", config={key: value})
    assert build(folder, None, task="text2text-generation", config={"decoder_layers": 2}).config.decoder_layers == 2


def test_pretrained_model_of_another_library_raises(pretrained, tmp_path):
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=40)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(pretrained)
    message = r"must be a 'maskattn' model with model\.task=text-classification, got .*'bert' model"
    with pytest.raises(ValueError, match=message):
        build_model(ModelArguments(task="text-classification", pretrained=str(tmp_path)), tokenizer, ["a"])


def test_pretrained_model_of_another_family_raises(pretrained):
    message = r"must be a 'maskattn_rnnsearch' model with model\.task=text2text-generation, got .*'maskattn' model"
    with pytest.raises(ValueError, match=message):
        build(pretrained, None, task="text2text-generation")


def test_generation_settings_are_saved_with_the_model(tmp_path):
    recipe = load_toy(tmp_path, task="text2text-generation", training={"generation_num_beams": 3, "num_train_epochs": 1})
    folder = train(recipe).model_folder
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    special = [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert special == [0, 2, 3]
    assert [model.config.pad_token_id, model.config.decoder_start_token_id, model.config.eos_token_id] == special
    assert model.config.vocab_size == len(tokenizer)
    longest = 1 + recipe.data.max_target_length
    assert (model.generation_config.num_beams, model.generation_config.max_length) == (3, longest)
    assert model.generate(**tokenizer("a b", return_tensors="pt"), min_length=longest).shape == (1, longest)


def test_words_are_dropped_in_training_only(tmp_path):
    trainer = assemble_toy(tmp_path, "data.unknown_word_dropout=1e9", "training.per_device_train_batch_size=40").trainer
    trained, evaluated = (next(iter(loader)) for loader in (trainer.get_train_dataloader(), trainer.get_eval_dataloader()))
    unknown = trainer.processing_class.unk_token_id
    assert (trained["input_ids"][trained["attention_mask"] == 1] == unknown).all()
    assert not (evaluated["input_ids"] == unknown).any()


def test_default_epochs_are_those_that_trainer_counts(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path), ["training.gradient_accumulation_steps=3"])
    del recipe.training["num_train_epochs"]
    trainer = assemble(recipe, training_arguments(recipe)).trainer
    _, steps_per_epoch, *_, max_steps = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())
    assert (steps_per_epoch, trainer.args.num_train_epochs, max_steps) == (2, 250, 500)


def test_summary_states_every_fact(tmp_path):
    summary = summarize(assemble_toy(tmp_path, "training.warmup_steps=3", "data.max_length=6"))
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    share = sum(row["label"] == "dog" for row in rows) / len(rows)
    assert summary["task"] == f"text-classification, 2 labels (the largest, dog, has {share:.1%})"
    assert summary["model"] == "MaskAttnForSequenceClassification with 536 parameters, 54 of them embeddings"
    assert summary["data"] == f"{tmp_path / 'train.jsonl'}: train 40 rows, validation 12 rows, test 12 rows"
    assert summary["tokenizer"] == "word, 9 tokens"
    assert summary["unknown tokens"] == "train 0.00%, validation 0.00%"
    cut = [len(row["text"].split()) - 6 for row in rows if len(row["text"].split()) > 6]
    assert f"{len(cut)} of 40 rows in train ({sum(cut)} tokens beyond data.max_length=6)" in summary["truncated"]
    assert summary["training"] == "10 steps (2 epochs) of 8 rows, weight decay 0.01"
    assert summary["learning rate"] == "0.01, linear, 3 warmup steps"
    assert summary["device"] == "cpu, float32, seed 42"
    assert summary["output"] == str(tmp_path / "run")


def test_summary_names_an_accelerator_without_a_name(tmp_path, monkeypatch):
    ready = assemble_toy(tmp_path)
    monkeypatch.setattr(type(ready.trainer.args), "device", torch.device("mps", 0))
    assert summarize(ready)["device"] == "mps:0, float32, seed 42"


def test_summary_of_a_stream(tmp_path):
    summary = summarize(assemble_toy(tmp_path, *STREAM, task="token-classification"))
    assert summary["task"] == "token-classification, 3 labels"
    assert summary["data"].endswith(": train (a stream), validation 12 rows, test 12 rows")
    assert summary["training"] == "5 steps of 8 rows, weight decay 0.01"
    assert summary["unknown tokens"] == "validation 0.00%"


def test_summary_without_labels_has_advice_for_unknown_tokens(tmp_path):
    summary = summarize(assemble_toy(tmp_path, "data.vocab_size=5", task="text2text-generation"))
    assert summary["task"] == "seq2seq"
    assert "Keep more words with data.min_frequency=1" in summary["unknown tokens"]


def test_summary_counts_rows_of_labels(tmp_path):
    labels = cycle([["a"], ["a", "b"], [], ["a"]])
    model = {"problem_type": "multi_label_classification"}
    summary = summarize(assemble_toy(tmp_path, model=model, make=lambda row: {**row, "label": next(labels)}))
    assert summary["task"] == "text-classification, 2 labels (the largest, a, has 75.0%)"


def test_summary_is_aligned_lines_or_a_table():
    summary = RunSummary(task="a [b]", output="runs/x")
    assert str(summary) == "task    a [b]\noutput  runs/x"
    console = Console(file=io.StringIO(), force_terminal=True, width=60)
    console.print(summary)
    text = console.file.getvalue()
    assert "a [b]" in text
    assert len(text.splitlines()) == 4
