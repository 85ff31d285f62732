"""Recipes that train in a second: 40 short rows and a model with a few hundred weights."""

import json
import random
from pathlib import Path

import yaml

from hf_maskattn.recipes.recipe import Recipe, load_recipe
from hf_maskattn.recipes.training_defaults import training_arguments
from hf_maskattn.training.assembly import Assembly, assemble

SIZES = {"train": 40, "validation": 12, "test": 12}
STREAM = ("data.streaming=true", "training.max_steps=5", "data.shuffle_buffer=0")
"""Overrides of a recipe whose rows are streamed in their order."""
WORDS = {"cat": ["meow", "purr", "paw", "tail"], "dog": ["woof", "bark", "paw", "tail"]}


def _row(task: str, rng: random.Random) -> dict:
    if task == "text2text-generation":
        words = rng.choices("abcd", k=rng.randint(2, 5))
        return {"source": " ".join(words), "target": " ".join(reversed(words))}
    label = rng.choice(sorted(WORDS))
    words = [rng.choice(WORDS[label][:2]), *rng.choices(WORDS[label], k=rng.randint(1, 6))]
    if task in ("token-classification", "joint-classification"):
        tags = ["B-SOUND" if word in ("meow", "purr", "woof", "bark") else "O" for word in words]
        return {"tokens": words, "tags": tags, **({"label": label} if task == "joint-classification" else {})}
    return {"text": " ".join(words), "label": label}


def write_rows(folder: Path, task: str = "text-classification", make=None) -> dict[str, str]:
    """Write the files of the three splits of a task. `make(row)` may change each row."""
    rng = random.Random(0)
    files = {}
    for split, size in SIZES.items():
        rows = [_row(task, rng) for _ in range(size)]
        files[f"{split}_file"] = write_jsonl(folder / f"{split}.jsonl", [make(row) if make else row for row in rows])
    return files


def write_recipe(
    folder: Path, task: str = "text-classification", *, model=None, data=None, training=None, make=None, **others
) -> Path:
    """Write data and recipe of a task to a folder.

    Args:
        folder: The folder.
        task: The task.
        model: Fields of this group to change or add; None removes one.
        data: The same for this group.
        training: The same for this group.
        make: Changes a row.
        **others: Further groups, such as `teacher`.
    """
    groups = {
        "model": {"task": task, "embedding_size": 6, "hidden_size": 8, "attention_size": 8, **(model or {})},
        "data": {
            **write_rows(folder, task, make),
            "tokenizer": "word",
            "vocab_size": 40,
            **({"max_target_length": 8} if task == "text2text-generation" else {}),
            **(data or {}),
        },
        "training": {
            "output_dir": str(folder / "run"),
            "num_train_epochs": 2,
            "learning_rate": 1e-2,
            "per_device_train_batch_size": 8,
            "warmup_steps": 0,
            "use_cpu": True,
            "disable_tqdm": True,
            **(training or {}),
        },
        **others,
    }
    path = folder / "toy.yaml"
    given = {name: {key: value for key, value in fields.items() if value is not None} for name, fields in groups.items()}
    path.write_text(yaml.safe_dump(given), encoding="utf-8")
    return path


def load_toy(folder: Path, *overrides: str, task: str = "text-classification", **groups) -> Recipe:
    """Write a recipe, and load it with overrides."""
    return load_recipe(write_recipe(folder, task, **groups), overrides)


def assemble_toy(folder: Path, *overrides: str, task: str = "text-classification", **groups) -> Assembly:
    """Write a recipe, and build data, model and Trainer of it with overrides."""
    recipe = load_toy(folder, *overrides, task=task, **groups)
    return assemble(recipe, training_arguments(recipe))


def write_jsonl(path: Path, rows) -> str:
    """Write rows, one a line, and return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read_jsonl(path: Path) -> list:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def with_several_labels(row: dict) -> dict:
    """Replace the label by a list of labels, with a second one for long texts."""
    return {"text": row["text"], "label": [row["label"], *(["long"] if len(row["text"]) > 20 else [])]}


def with_a_number(row: dict) -> dict:
    """Replace the label by the number of spaces."""
    return {"text": row["text"], "label": float(row["text"].count(" "))}
