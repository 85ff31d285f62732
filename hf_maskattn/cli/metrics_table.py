"""Shows the end of a run: scores by split, where the model lies, how to load it."""

from rich.console import Console
from rich.table import Table

from hf_maskattn.export.tasks import loading_call
from hf_maskattn.loading.model_loading import load_config
from hf_maskattn.training.run_report import RunReport

_ONLY_IN_FILE = ("steps", "epochs", "samples_per_second")


def show_metrics(report: RunReport, task: str) -> None:
    """Print a table of metrics, where the model lies, and the line that loads it."""
    metrics, folder = report.metrics, str(report.model_folder)
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
        f"Model: {folder}",
        f"Load:  import hf_maskattn, transformers; transformers.{loading_call(load_config(folder), task, folder)}",
    ):
        console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)
