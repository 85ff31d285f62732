"""Tables and lines that commands print: metrics, predictions, an export, a publication."""

import shlex
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hf_maskattn.hub.publish import Publication
from hf_maskattn.inference.export import OnnxReport
from hf_maskattn.loading import load_config
from hf_maskattn.tasks import loading_call
from hf_maskattn.training.results import RunReport

_NOT_SHOWN = ("steps", "epochs", "samples_per_second")


def show_metrics(report: RunReport, task: str) -> None:
    """Print a table of metrics, the folder of the model, and the line that loads it."""
    metrics, folder = report.metrics, str(report.model_folder)
    names = list(dict.fromkeys(name for values in metrics.values() for name in values if name not in _NOT_SHOWN))
    names.sort(key=lambda name: name == "runtime")
    table = Table("split", *names)
    for column in table.columns[1:]:
        column.justify = "right"
    for split, values in metrics.items():
        table.add_row(split, *("" if name not in values else f"{values[name]:.4g}" for name in names))
    console = Console()
    console.print(table)
    for line in (
        f"Model: {folder}",
        f"Load:  import hf_maskattn, transformers; transformers.{loading_call(load_config(folder), task, folder)}",
    ):
        console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


def show_export(report: OnnxReport, model: str) -> None:
    """Print the largest difference from PyTorch for each shape, and the size of the file."""
    table = Table("batch x time", "padding", "logits", "attention weights", title="Largest difference of ONNX and PyTorch")
    for check in report.checks:
        table.add_row(f"{check.shape[0]} x {check.shape[1]}", check.padding, f"{check.logits:.1e}", f"{check.attentions:.1e}")
    for column in table.columns[2:]:
        column.justify = "right"
    console = Console()
    console.print(table)
    lines = [f"ONNX file: {report.path}, {_megabytes(report.size)}"]
    if report.int8_agreement is not None and report.full_size is not None:
        agreement = report.int8_agreement
        lines[0] += f" with 8-bit integers, {_megabytes(report.full_size)} without"
        if agreement.predictions:
            share = agreement.equal / agreement.predictions
            lines.append(
                f"Equal predictions with 8-bit integers: {agreement.equal:,} of {agreement.predictions:,} ({share:.2%})"
            )
        lines.append(f"Logits differ by up to {agreement.difference:.3g}")
    lines.append(f"Use: hf-maskattn predict {shlex.quote(model)} --onnx {shlex.quote(str(report.path))} --text TEXT")
    for line in lines:
        console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def show_predictions(predictions: Iterable[dict[str, Any]]) -> None:
    """Print a row for each text."""
    table = Table("text", "predictions")
    for prediction in predictions:
        if "error" in prediction:
            cell = f"error: {prediction['error']}"
        else:
            cell = "\n".join(_describe(item) for item in prediction["predictions"])
        table.add_row(Text(prediction["text"]), Text(cell))
    Console().print(table)


def _describe(item: dict[str, Any]) -> str:
    """Format a prediction: a generated text, or a label, entity or token with its score."""
    if "generated_text" in item:
        return item["generated_text"]
    label = item.get("label") or item.get("entity_group") or item.get("entity")
    parts = [part for part in (item.get("token_str") or item.get("word"), label) if part]
    return f"{' '.join(parts)} {item['score']:.3f}"


def show_publication(publication: Publication) -> None:
    """Print the URL, the changes of the commit, and the lines that load the model."""
    commit = publication.commit[:7]
    if publication.is_new:
        done = f"Published: {publication.url} (commit {commit}: {len(publication.changed)} of {len(publication.files)} files"
        removed = f", removed: {', '.join(publication.removed)}" if publication.removed else ""
        lines = [f"{done}{removed})"]
    else:
        lines = [f"Nothing to publish: {publication.url} has these {len(publication.files)} files already (commit {commit})"]
    lines += [
        f"Load:      import hf_maskattn, transformers; transformers.{publication.loading_call()}",
        f"Anywhere:  import transformers; transformers.{publication.loading_call(trust_remote_code=True)}",
    ]
    console = Console()
    for line in lines:
        console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)
