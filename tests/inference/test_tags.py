"""The entities that `predict` returns are those that `evaluate` scores."""

import json
import math

import pytest
import torch

from hf_maskattn.data.tokenizers import KINDS
from hf_maskattn.inference.evaluate import evaluate
from hf_maskattn.inference.predict import predict
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training.assembly import build_model
from hf_maskattn.training.task_data import training_data
from tests.tagged_sentences import random_rows, write_tagged_rows
from tests.training.toy_recipe import write_recipe

WORDS = ["New", "York", "in", "2024", ",", "of", "hamburgers", "(", "réel", "x"]


def write_rows(path, seed, *, mark_entities=True):
    """Write rows whose words are those that `predict` finds in a text."""
    items = random_rows("IOB2", 40, seed, with_text=False, words=WORDS)
    if not mark_entities:
        for item in items:
            item["row"]["tags"] = ["NUM" if word.isdigit() else "WORD" for word in item["row"]["tokens"]]
    return write_tagged_rows(path, items), items


@pytest.fixture
def save_tagger(tmp_path):
    """Save a tagger with large random weights, which predicts all labels. Returns folder, recipe and rows of its test split."""

    def save(kind, *overrides, mark_entities=True):
        path = write_recipe(tmp_path, "token-classification", data={"tokenizer": kind, "vocab_size": 300})
        files = {
            name: write_rows(tmp_path / f"{name}_rows.jsonl", seed, mark_entities=mark_entities)
            for seed, name in enumerate(("train", "test"))
        }
        given = [f"data.{name}_file={file}" for name, (file, _) in files.items()]
        recipe = load_recipe(path, [*given, "data.validation_file=", *overrides])
        data = training_data(recipe, seed=0)
        torch.manual_seed(0)
        model = build_model(recipe.model, data.tokenizer, data.labels, data.tag_scheme)
        with torch.no_grad():
            for weight in model.parameters():
                weight.normal_(0, 1.5)
        model.save_pretrained(tmp_path / "model")
        data.tokenizer.save_pretrained(tmp_path / "model")
        return tmp_path / "model", recipe, files["test"][1]

    return save


def span_scores(results, rows):
    """Return precision and recall of the entities of `predict`, by type and characters."""
    found, expected = set(), set()
    for number, (result, row) in enumerate(zip(results, rows, strict=True)):
        found |= {(number, item["entity_group"], item["start"], item["end"]) for item in result["predictions"]}
        expected |= {(number, *entity) for entity in row["entities"]}
    correct = len(found & expected)
    return correct / len(found), correct / len(expected)


@pytest.mark.parametrize("use_crf", [False, True])
@pytest.mark.parametrize("kind", ["bpe", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS if kind != "bpe")])
def test_entities_of_predict_are_those_that_evaluate_scores(save_tagger, kind, use_crf):
    folder, recipe, rows = save_tagger(kind, "data.max_length=12", f"model.use_crf={use_crf}")
    scored = evaluate(folder, recipe).metrics["test"]
    found = span_scores(predict(folder, [row["text"] for row in rows], max_length=12), rows)
    assert 0 < scored["f1"] < 1
    assert (scored["precision"], scored["recall"]) == pytest.approx(found)


def test_crf_scores_an_entity_that_begins_at_a_shared_token(save_tagger, tmp_path):
    folder, recipe, _ = save_tagger("word", "model.use_crf=true")
    # The token "xYork" is that of "x". A CRF gives O, I-PER the probability 0.
    row = {"text": "xYork in", "tokens": ["x", "York", "in"], "tags": ["O", "B-PER", "I-PER"]}
    (tmp_path / "test_rows.jsonl").write_text(json.dumps(row))
    assert math.isfinite(evaluate(folder, recipe).metrics["test"]["loss"])


def test_tags_of_predict_are_those_that_evaluate_scores(save_tagger):
    folder, recipe, rows = save_tagger("wordpiece", mark_entities=False)
    found = [
        word["entity"] == tag
        for result, row in zip(predict(folder, [row["text"] for row in rows]), rows, strict=True)
        for word, tag in zip(result["predictions"], row["row"]["tags"], strict=True)
    ]
    assert 0 < sum(found) < len(found)
    assert evaluate(folder, recipe).metrics["test"]["accuracy"] == pytest.approx(sum(found) / len(found))
    assert json.dumps(list(predict(folder, ["x"])))
