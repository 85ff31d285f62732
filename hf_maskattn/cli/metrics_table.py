"""Shows the end of a run: scores by split, where the model lies, how to load it."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

_ONLY_IN_FILE = ("steps", "epochs", "samples_per_second")


def show_metrics(metrics: Mapping[str, Mapping[str, float]], model_folder: Path, task: str) -> None:
    """Print a table of metrics, and the line that loads the model."""
    names = list(dict.fromkeys(name for values in metrics.values() for name in values if name not in _ONLY_IN_FILE))
    names.sort(key=lambda name: name == "runtime")
    table = Table("split", *names)
    for column in table.columns[1:]:
        column.justify = "right"
    for split, values in metrics.items():
        table.add_row(split, *("" if name not in values else f"{values[name]:.4g}" for name in names))
    console = Console()
    console.print(table)
    for line in (
        f"Model: {model_folder}",
        f'Load:  import hf_maskattn, transformers; transformers.pipeline("{task}", model="{model_folder}")',
    ):
        console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)
