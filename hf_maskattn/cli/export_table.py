"""Shows the end of an export: how equal the file is to the model, its size, how to use it."""

import shlex

from rich.console import Console
from rich.table import Table

from hf_maskattn.training.export import OnnxReport


def show_export(report: OnnxReport, model: str) -> None:
    """Print a row for each shape that was compared, and the lines about the file."""
    table = Table("batch x time", "pads", "logits differ by", "attention weights by", title="ONNX file against PyTorch")
    for check in report.checks:
        table.add_row(
            f"{check.shape[0]} x {check.shape[1]}", check.arrangement, f"{check.logits:.1e}", f"{check.attentions:.1e}"
        )
    for column in table.columns[2:]:
        column.justify = "right"
    console = Console()
    console.print(table)
    lines = [f"ONNX file: {report.path}, {_megabytes(report.size)}"]
    if report.int8_agreement is not None and report.full_size is not None:
        found = report.int8_agreement
        lines[0] += f" with 8-bit integers, {_megabytes(report.full_size)} without"
        if found.predictions:
            share = found.equal / found.predictions
            lines.append(f"Equal predictions with 8-bit integers: {found.equal:,} of {found.predictions:,} ({share:.2%})")
        lines.append(f"Logits differ by up to {found.difference:.3g}")
    lines.append(f"Use it: hf-maskattn predict {shlex.quote(model)} --onnx {shlex.quote(str(report.path))} --text TEXT")
    for line in lines:
        console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
