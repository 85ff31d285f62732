"""transformers: device and dtype of `from_pretrained`, and early stopping."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, EarlyStoppingCallback

from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.recipes.training_defaults import training_arguments
from hf_maskattn.training.assembly import assemble
from tests.training.toy_recipe import write_recipe

IDS = torch.arange(1, 11).view(2, 5)


@pytest.mark.parametrize(
    ("arguments", "dtype"),
    [
        ({"device_map": "auto"}, torch.float32),
        ({"device_map": "cpu", "dtype": torch.bfloat16}, torch.bfloat16),
        ({"dtype": "auto"}, torch.float32),
        ({"dtype": "float16"}, torch.float16),
        ({"torch_dtype": torch.bfloat16}, torch.bfloat16),
    ],
    ids=str,
)
def test_from_pretrained_on_device_and_dtype(saved, arguments, dtype):
    model, folder = saved()
    loaded = AutoModelForSequenceClassification.from_pretrained(folder, **arguments)
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, model.to(dtype)(IDS).logits)


@pytest.mark.slow
def test_early_stopping_keeps_the_best_model(tmp_path):
    wrong = {"cat": "dog", "dog": "cat"}
    recipe = load_recipe(write_recipe(tmp_path, training={"num_train_epochs": 9, "metric_for_best_model": "loss"}))
    rows = (tmp_path / "validation.jsonl").read_text().splitlines()
    rows = [
        {**row, "label": wrong[row["label"]]} for row in map(json.loads, rows)
    ]  # wrong labels, so that evaluation gets worse with training
    (tmp_path / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trainer = assemble(recipe, training_arguments(recipe)).trainer
    trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=2))
    trainer.train()
    scores = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert scores == sorted(scores)
    assert len(scores) == trainer.state.epoch == 3
    best = load_file(tmp_path / "run" / "checkpoint-5" / "model.safetensors")
    assert all(torch.equal(value, best[name]) for name, value in trainer.model.state_dict().items())
