"""Labels of texts and of their words, from one file to predictions."""

import json
import math

import numpy as np
import pytest
import torch
from transformers import EvalPrediction, pipeline

from hf_maskattn import MaskAttnForJointClassification, MaskAttnForTokenClassification
from hf_maskattn.data.tokenizers import load_tokenizer
from hf_maskattn.hub.publication_files import copy_published_files, load_without_package
from hf_maskattn.inference.evaluate import evaluate
from hf_maskattn.inference.export import export_onnx
from hf_maskattn.inference.predict import predict
from hf_maskattn.metrics.tagging import joint_classification_evaluation
from hf_maskattn.recipes.arguments import ModelArguments
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.recipes.starter_recipe import write_starter_recipe
from hf_maskattn.recipes.training_defaults import training_arguments
from hf_maskattn.training.assembly import assemble, build_model
from hf_maskattn.training.error_analysis import evaluate_with_errors
from hf_maskattn.training.task_data import evaluation_data, training_data
from hf_maskattn.training.train import train
from tests.training.toy_recipe import STREAM, read_jsonl, write_jsonl, write_recipe

TASK = "joint-classification"
TEXTS = ["meow paw", "tail woof woof"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run: its recipe and its report."""
    folder = tmp_path_factory.mktemp("joint")
    recipe = load_recipe(write_recipe(folder, TASK, training={"num_train_epochs": 8, "learning_rate": 5e-2}))
    return recipe, train(recipe)


def test_run_learns_both_labels(run):
    scores = run[1].metrics["test"]
    assert scores["sentence_accuracy"] == scores["accuracy"] == scores["tag_f1"] == 1
    assert {name for name in scores if "a" in name} >= {"tag_precision", "tag_recall"}


def test_evaluate_repeats_errors_of_run(run):
    recipe, report = run
    again = evaluate(report.model_folder, recipe)
    found = json.loads((report.model_folder / "report.json").read_text())
    assert [found[name] for name in ("rows_listed", "classes", "entities")] == [
        again.analysis.report[name] for name in ("rows_listed", "classes", "entities")
    ]
    assert {*found["classes"]} == {"cat", "dog"}
    assert {*found["entities"]} == {"SOUND"}


def test_predict_returns_most_probable_labels(run):
    folder = str(run[1].model_folder)
    (one,), (two,) = (predict(folder, TEXTS[:1], top_k=number) for number in (1, "all"))
    assert two["predictions"][0] == one["predictions"][0]
    assert [item["label"] for item in two["predictions"]] == ["cat", "dog"]
    assert sum(item["score"] for item in two["predictions"]) == pytest.approx(1)
    assert "entities" not in two["predictions"][1]


def test_predict_returns_label_with_entities(run):
    folder = str(run[1].model_folder)
    results = [*predict(folder, [*TEXTS, ["woof", "paw"], " "])]
    labels = pipeline("text-classification", model=folder)(TEXTS)
    tags = pipeline("token-classification", model=folder)(TEXTS)
    for result, label, tokens in zip(results, labels, tags, strict=False):
        (found,) = result["predictions"]
        assert found["label"] == label["label"]
        assert found["score"] == pytest.approx(label["score"], abs=1e-6)
        assert [item["start"] for item in found["entities"]] == [item["start"] for item in tokens]
    assert [item["predictions"][0]["label"] for item in results[:2]] == ["cat", "dog"]
    (entity,) = results[2]["predictions"][0]["entities"]
    assert (entity["entity_group"], entity["words"]) == ("SOUND", [0])
    assert results[3]["predictions"] == []


@pytest.mark.slow
def test_onnx_file_predicts_as_model(run, tmp_path):
    folder = run[1].model_folder
    report = export_onnx(folder, tmp_path / "model.onnx")
    assert max(check.logits for check in report.checks) < 1e-4
    pairs = zip(predict(folder, TEXTS), predict(folder, TEXTS, onnx_file=tmp_path / "model.onnx"), strict=True)
    for expected, found in pairs:
        (one,), (other,) = expected["predictions"], found["predictions"]
        assert one["label"] == other["label"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)
        assert [item["word"] for item in one["entities"]] == [item["word"] for item in other["entities"]]


@pytest.mark.slow
def test_run_loads_without_package(run, tmp_path):
    copy_published_files(run[1].model_folder, tmp_path)
    assert load_without_package(tmp_path) > 0
    card = (tmp_path / "README.md").read_text()
    assert "2 labels of texts, 3 labels of words" in card
    assert 'pipeline("text-classification", ...)' in card


def test_sentence_accuracy_needs_label_and_tags():
    evaluation = joint_classification_evaluation(label_names=["O", "B-X"], tag_scheme="IOB2")
    tags = np.array([[0, 1, -100], [1, 0, -100], [0, 0, 1]])
    labels = np.array([0, 1, 1])
    predicted = np.array([[0, 1, 1], [1, 1, 0], [0, 0, 1]]), np.array([0, 1, 0])
    scores = evaluation.compute_metrics(EvalPrediction(predictions=predicted, label_ids=(tags, labels)))
    assert scores["sentence_accuracy"] == pytest.approx(1 / 3)
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["tag_precision"] == pytest.approx(3 / 4)
    assert tuple(scores) == evaluation.metric_names


def test_tags_without_spans_have_an_accuracy():
    names = joint_classification_evaluation(label_names=["NOUN", "VERB"]).metric_names
    assert names == ("sentence_accuracy", "accuracy", "tag_accuracy", "tag_macro_f1")


def test_integers_are_ids_of_both_kinds_of_labels(tmp_path):
    def to_integers(row):
        return {**row, "tags": [int(tag != "O") for tag in row["tags"]], "label": int(row["label"] == "dog")}

    names = {"tags": ["O", "B-SOUND"], "labels": ["cat", "dog"]}
    data = training_data(load_recipe(write_recipe(tmp_path, TASK, data=names, make=to_integers)), seed=0)
    assert (data.labels, data.sequence_labels) == (["O", "B-SOUND", "I-SOUND"], ["cat", "dog"])
    assert {*data.splits["train"]["sequence_labels"]} == {0, 1}


def test_validation_fraction_keeps_both_kinds_of_labels(tmp_path):
    path = write_recipe(tmp_path, TASK, data={"validation_fraction": 0.5, "validation_file": None})
    rows = [{"tokens": ["a"], "tags": ["O"], "label": "cat"}] * 10
    rows += [{"tokens": ["b"], "tags": ["B-X"], "label": "cat"}, {"tokens": ["c"], "tags": ["O"], "label": "dog"}]
    write_jsonl(tmp_path / "train.jsonl", rows)
    for seed in range(4):
        data = training_data(load_recipe(path, ["data.test_file=", "data.min_frequency=1"]), seed=seed)
        assert ({*data.labels}, data.sequence_labels) == ({"B-X", "I-X", "O"}, ["cat", "dog"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.label_smoothing_factor=0.1"], r"label_smoothing_factor=0\.1 is not supported with model\.task=joint"),
        (["data.label_column=tags"], "must have one label per row"),
        (["data.tags_column=label"], "'label' .* must have a list per row"),
        (["data.tags_column=slots"], r"no column 'slots'; .* data\.tags_column=\.\.\."),
    ],
)
def test_bad_recipes_are_reported(tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        train(load_recipe(write_recipe(tmp_path, TASK), overrides))


@pytest.mark.parametrize("change", [{"label": "cat"}, {"tags": []}])
def test_labels_of_one_class_are_reported(tmp_path, change):
    ((column, value),) = change.items()
    path = write_recipe(tmp_path, TASK, make=lambda row: {**row, column: value or ["O"] * len(row["tokens"])})
    key = {"label": "data.label_column", "tags": "data.tags_column"}[column]
    words = (
        rf"the column '{column}' must have at least two different labels, got {value or 'O'} .* Set another column with {key}"
    )
    with pytest.raises(ValueError, match=words):
        training_data(load_recipe(path), seed=0)


def test_further_labels_of_both_kinds_are_scored_as_errors(tmp_path, caplog):
    path = write_recipe(tmp_path, TASK)
    args = load_recipe(path), training_arguments(load_recipe(path))
    known = assemble(*args)
    rows = read_jsonl(tmp_path / "test.jsonl")
    rows[0]["label"] = "lion"
    rows[1]["tags"][0] = "B-NOISE"
    write_jsonl(tmp_path / "test.jsonl", rows)
    ready = assemble(*args)
    assert ready.data.sequence_labels == ["cat", "dog"]
    assert ready.data.encoder.further_sequence_labels == ["lion"]
    assert "in 1 of 12 rows of the split 'test' are not among those that the model learns (lion: 1)" in caplog.text
    assert "(B-NOISE: 1). They are scored as errors. Correct them, or list all labels in data.tags" in caplog.text
    before, after = (evaluate_with_errors(item.trainer, "test", item.data, item.evaluation) for item in (known, ready))
    assert after[0]["accuracy"] in (pytest.approx(before[0]["accuracy"]), pytest.approx(before[0]["accuracy"] - 1 / 12))
    assert math.isfinite(after[0]["loss"])
    wrong = {row: after[1].describe(row) for row in after[1].rows}
    assert (wrong[0]["label"], wrong[0]["score_of_label"]) == ("lion", 0)
    again = evaluation_data(args[0], 0, "test", ready.data.tokenizer, ready.data.labels, "IOB2", ["cat", "dog"])
    assert again.encoder.further_sequence_labels == ["lion"]
    assert again.splits["test"]["sequence_labels"][:] == ready.data.splits["test"]["sequence_labels"][:]


def test_labels_beyond_the_first_rows_name_both_lists(tmp_path):
    path = write_recipe(tmp_path, TASK)
    rows = read_jsonl(tmp_path / "train.jsonl")
    rows[-1]["tags"][0] = "B-NOISE"
    write_jsonl(tmp_path / "train.jsonl", rows)
    stream = training_data(load_recipe(path, [*STREAM, "data.sample_rows=30"]), seed=0).splits["train"]
    with pytest.raises(ValueError, match=r"the first 30 rows\. List all labels in data\.tags and data\.labels, or raise"):
        list(stream)


def test_pretrained_tagger_gets_a_second_head(run, tmp_path):
    tagger = MaskAttnForTokenClassification.from_pretrained(run[1].model_folder)
    tagger.save_pretrained(tmp_path)
    tokenizer, labels = load_tokenizer(run[1].model_folder), [*tagger.config.id2label.values()]
    model = build_model(ModelArguments(task=TASK, pretrained=str(tmp_path)), tokenizer, labels, "IOB2", ["a", "b", "c"])
    assert isinstance(model, MaskAttnForJointClassification)
    assert len(model.classifier.bias) == 3
    expected = tagger.state_dict()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in expected.items())


def test_starter_recipe_finds_columns(tmp_path):
    write_recipe(tmp_path, TASK)
    write_starter_recipe(TASK, str(tmp_path / "train.jsonl"), tmp_path / "new.yaml")
    data = load_recipe(tmp_path / "new.yaml").data
    assert (data.tokens_column, data.tags_column, data.label_column) == ("tokens", "tags", "label")
