"""The script that fine-tunes a teacher, and the shipped recipes that distill one, at toy size."""

import json
import runpy
from pathlib import Path

import pytest
from transformers import AutoConfig

from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training.train import train
from tests.training.teachers import save_teacher
from tests.training.toy_recipe import write_rows

ROOT = Path(__file__).parents[2]
TOY = ("embedding_size=8", "hidden_size=8", "embedding_dropout_prob=0", "classifier_dropout=0")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a model that is not fine-tuned."""
    return save_teacher(tmp_path_factory.mktemp("base"), ["a", "b"])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files of the toy recipe, by their keys."""
    return write_rows(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, base, files):
    """The folder that the script writes."""
    folder = tmp_path_factory.mktemp("teacher")
    finetune = runpy.run_path(str(ROOT / "examples" / "finetune_teacher.py"))["main"]
    finetune([files["train_file"], files["validation_file"], str(folder), "--base", base, "--epochs", "1", "--batch-size", "8"])
    return folder


@pytest.mark.slow
def test_finetuned_teacher_has_labels_and_tokenizer(teacher):
    assert AutoConfig.from_pretrained(teacher).id2label == {0: "cat", 1: "dog"}
    assert {"model.safetensors", "tokenizer.json"} <= {path.name for path in teacher.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["snips_intents_distilled", "sst2_distilled", "trec6_distilled"])
def test_shipped_recipe_distills_a_finetuned_teacher(tmp_path, monkeypatch, base, files, teacher, name):
    monkeypatch.setattr("hf_maskattn.data.cache.HF_HOME", str(tmp_path / "cache"))
    overrides = [
        *(f"model.{setting}" for setting in TOY),
        f"model.embeddings={base}",
        "data.source=null",
        "data.text_column=text",
        *(f"data.{key}={path}" for key, path in files.items()),
        f"teacher.model={teacher}",
        f"training.output_dir={tmp_path / 'run'}",
        "training.max_steps=2",
        "training.disable_tqdm=true",
    ]
    train(load_recipe(ROOT / "configs" / f"{name}.yaml", overrides))
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]
    for split in ("validation", "test"):
        assert {"accuracy", "teacher_accuracy", "agreement"} <= set(metrics[split])
