"""What a run found out: metrics by split, and under which versions."""

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate
import datasets
import torch
import transformers
from transformers import Trainer

from hf_maskattn import __version__
from hf_maskattn.checkpoints.checkpoints import write_atomically
from hf_maskattn.hub.publish import Publication
from hf_maskattn.metrics.task_metrics import TaskEvaluation


@dataclass(frozen=True)
class RunReport:
    """The end of a run.

    Args:
        model_folder: Where the model lies.
        metrics: Values by metric name, by split.
        is_main_process: Whether this process is the one that may print and write.
        publication: What is on the Hub, None if the run was not published.
    """

    model_folder: Path
    metrics: dict[str, dict[str, float]]
    is_main_process: bool
    publication: Publication | None = None


def score(trainer: Trainer, split: str, dataset: datasets.Dataset, evaluation: TaskEvaluation) -> dict[str, float]:
    """Score a split.

    Args:
        trainer: The Trainer.
        split: Name of the split.
        dataset: Its model inputs.
        evaluation: How the task is evaluated.

    Returns:
        Loss, metrics of the task, seconds and rows per second.
    """
    # Trainer.evaluate would score the validation split once more where dataloader workers are persistent.
    values = trainer.predict(dataset, metric_key_prefix=split).metrics
    names = ("loss", *evaluation.metric_names, "runtime", "samples_per_second")
    return {name: float(values[f"{split}_{name}"]) for name in names if f"{split}_{name}" in values}


def versions() -> dict[str, str]:
    """Name the versions of everything that numbers can depend on."""
    others = {module.__name__: module.__version__ for module in (torch, transformers, datasets, accelerate)}
    return {"python": platform.python_version(), "hf_maskattn": __version__, **others}


def write_report(path: Path, metrics: dict[str, dict[str, float]], **facts: Any) -> None:
    """Write `metrics.json`."""
    content = {"metrics": metrics, **facts, "versions": versions()}
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def read_metrics(path: Path) -> dict[str, dict[str, float]]:
    """Read the metrics of a `metrics.json`."""
    return json.loads(path.read_text(encoding="utf-8"))["metrics"]
