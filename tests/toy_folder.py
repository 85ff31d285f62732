"""A model folder with the files of a training run."""

import json
from pathlib import Path

import torch

import hf_maskattn
from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.hub.model_card import TrainingData, build_model_card

PUBLISHED = {"README.md", "attention.png", "metrics.json", "recipe.yaml", "config.json", "model.safetensors"} | {
    "tokenizer.json",
    "tokenizer_config.json",
}
"""The files that are published, without the code."""


def write_model_folder(folder: Path, head: str = "MaskAttnForSequenceClassification") -> Path:
    """Write a model with tokenizer, card, scores and recipe, and files that must not be published."""
    tokenizer = train_tokenizer(["cats meow and purr", "dogs bark and growl"], kind="word", vocab_size=40, max_length=32)
    sizes = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "embedding_size": 6, "hidden_size": 8}
    model_class = getattr(hf_maskattn, head)
    model = model_class(model_class.config_class(**sizes, attention_size=8))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    data = TrainingData("pets", None, "Sounds.", "CC0-1.0", "", {"train": 3})
    scores = {"test": {"loss": 0.5, "accuracy": 0.75}}
    build_model_card("run", model.config, 600, "text-classification", data, scores, ["accuracy"]).save(folder / "README.md")
    (folder / "metrics.json").write_text(json.dumps({"metrics": scores}))
    (folder / "recipe.yaml").write_text("model:\n  task: text-classification\n")
    (folder / "attention.png").write_bytes(b"\x89PNG")
    (folder / "trainer_state.json").write_text("{}")
    (folder / "notes.txt").write_text("mine")
    torch.save({}, folder / "training_args.bin")
    (folder / "checkpoint-5").mkdir()
    torch.save({}, folder / "checkpoint-5" / "optimizer.pt")
    return folder
