"""The entry point of the command, and what commands print: one line for an error, log messages, tables of results."""

import io
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hf_maskattn import __version__
from hf_maskattn.tasks import loading_call

if TYPE_CHECKING:
    from hf_maskattn.benchmark.report import Report as BenchmarkReport
    from hf_maskattn.hub.publish import Publication
    from hf_maskattn.inference.export import OnnxReport
    from hf_maskattn.inspection.audit_report import AuditReport
    from hf_maskattn.training.results import RunReport
    from hf_maskattn.training.seeds import SeedScores
    from hf_maskattn.training.tuning import TuningReport

NOT_PASSED = 1
MISTAKE = 2
INTERRUPTED = 130

_TERMINATION_SECONDS = 30.0
_LOG_WIDTH = 140
_NOT_SHOWN = ("steps", "epochs", "samples_per_second")


def main() -> None:
    """Run the command. A character that the encoding of stdout does not have is printed as a question mark."""
    from hf_maskattn.cli import app

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    app(prog_name="hf-maskattn")


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"hf-maskattn {__version__}")
        raise typer.Exit


def set_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Handle the options that are given before a command."""


def is_first_process() -> bool:
    """Whether this process is the only one or the first one of its run."""
    return os.environ.get("RANK", "0") == "0"


def is_one_of_several() -> bool:
    """Whether a launcher started several processes."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def report_first_failure_only() -> None:
    """Return in the process that fails first, and wait for termination in any other process.

    The others fail for the same reason, or because a process is gone, and their launcher terminates them with the first one.
    Which one is first is recorded in the store of torchrun and `accelerate launch`. Under another launcher all return.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    from torch.distributed import TCPStore

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=_TERMINATION_SECONDS))
    if store.add(f"hf_maskattn/failed/{os.environ['TORCHELASTIC_RESTART_COUNT']}", 1) > 1:
        time.sleep(_TERMINATION_SECONDS)


def write_launcher_error(text: str) -> None:
    """Write an error to the file of torchrun and `accelerate launch`, whose report of a failed run ends with it.

    Without the file the report says "To enable traceback see ..."; with the exception itself it would contain our traceback.

    Args:
        text: The line that was printed.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is not None:
        message = {"message": text, "extraInfo": {"timestamp": str(int(time.time()))}}
        with suppress(OSError):  # the line itself was printed
            Path(path).write_text(json.dumps({"message": message}), encoding="utf-8")


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print an error of usage as one line `error: ...` with exit code 2, and exit with code 130 after Ctrl-C."""
    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt as error:
        if is_first_process():
            print_message("Interrupted.")
        raise typer.Exit(INTERRUPTED) from error
    except BrokenPipeError as error:
        # The reader of our output has exited (`| head`). Python must not flush it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from error
    except (ValueError, TypeError, OSError, ImportError) as error:
        report_first_failure_only()
        text = " ".join([f"error: {error}", *getattr(error, "__notes__", ())])
        text = " ".join(text.split())  # messages of libraries may have several lines
        print_message(text)
        write_launcher_error(text)
        raise typer.Exit(MISTAKE) from error
    except Exception:
        # The end of another process raises one of these here.
        report_first_failure_only()
        raise


def print_message(text: str) -> None:
    """Print a line to stderr, with the number of the process unless it is the first one."""
    sender = "" if is_first_process() else f"process {os.environ['RANK']}: "
    Console(stderr=True).print(sender + text, markup=False, emoji=False, highlight=False, soft_wrap=True)


def print_utf8(line: str) -> None:
    """Print a line of JSON or HTML to stdout in UTF-8, which cannot encode a lone surrogate: JSON has an escape for it."""
    encoded = line.encode("utf-8", "backslashreplace")
    # A stream without a buffer, such as io.StringIO, has no encoding.
    typer.echo(encoded if hasattr(sys.stdout, "buffer") else encoded.decode())


class MessageHandler(logging.StreamHandler):
    """Prints log messages to stderr, above progress bars. On a terminal, rich renders those that it can."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        from tqdm import tqdm

        if hasattr(record.msg, "__rich__") and self.stream.isatty():
            Console(file=self.stream).print(record.msg)
        else:
            tqdm.write(self.format(record), file=self.stream)


def show_messages() -> None:
    """Show log messages of this package (in the first process only), and hide progress bars of short work."""
    from transformers.utils import logging as transformers_logging

    handler = MessageHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("hf_maskattn")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO if is_first_process() else logging.ERROR)
    transformers_logging.disable_progress_bar()


def show_report(report: "AuditReport | BenchmarkReport", json_file: Path | None) -> None:
    """Print the report of `audit` or `benchmark`, write it to a file on request, and exit with 1 if it has not passed."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, _LOG_WIDTH)
    console.print(report)
    if json_file is not None:
        json_file.write_text(report.to_json() + "\n", encoding="utf-8")
    if not report.passed:
        raise typer.Exit(NOT_PASSED)


def build_table(name: str, *numbers: str, title: str | None = None) -> Table:
    """Build a table of names in the first column and numbers in the others."""
    table = Table(name, title=title)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def show_metrics(report: "RunReport", task: str) -> None:
    """Print a table of metrics, the folder of the model, and the line that loads it. A teacher has rows of its own."""
    from tqdm import tqdm

    from hf_maskattn.hub.model_card import rows_with_teacher

    metrics, folder = rows_with_teacher(report.metrics), str(report.model_folder)
    names = list(dict.fromkeys(name for values in metrics.values() for name in values if name not in _NOT_SHOWN))
    names.sort(key=lambda name: name == "runtime")
    table = build_table("split", *("time" if name == "runtime" else name for name in names))
    for split, values in metrics.items():
        texts = {name: f"{value:.4g}" for name, value in values.items()}
        if "runtime" in values:
            texts["runtime"] = tqdm.format_interval(round(values["runtime"]))
        table.add_row(split, *(texts.get(name, "") for name in names))
    Console().print(table)
    if report.best is not None:
        _print_line(f"Best:  {report.best}")
    if report.attention is not None:
        _print_line(f"Attention on {report.attention.rows} validation rows: {report.attention.describe()}")
    _print_line(f"Model: {folder}")
    _print_line(f"Load:  import hf_maskattn, transformers; transformers.{loading_call(task, folder)}")


def show_next_steps(report: "RunReport") -> None:
    """Print where the errors of a model that was just trained are, and the commands that use it."""
    folder = shlex.quote(str(report.model_folder))
    if report.analysis is not None:
        _print_line(f"Errors: {report.analysis.summarize()}: {report.model_folder / 'errors.jsonl'}")
    split = "" if "test" in report.metrics else next((f" --split {name}" for name in report.metrics if name != "train"), None)
    commands = [f"hf-maskattn predict {folder} --text {shlex.quote(report.example or 'TEXT')}"]
    if split is not None:
        commands.append(f"hf-maskattn evaluate {folder}{split}")
    if report.publication is None:
        commands.append(f"hf-maskattn push {folder} NAME")
    for number, command in enumerate(commands):
        _print_line(f"{'       ' if number else 'Next:  '}{command}")


def _print_line(text: str) -> None:
    """Print a line to stdout as it is, however long."""
    Console().print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


def show_seeds(scores: "SeedScores") -> None:
    """Print a table of the scores of each seed, their mean and deviation, and the folder of the best model."""
    seeds = [f"seed {seed}" for seed in scores.metrics]
    table = build_table("score", *seeds, "mean", "std", title="Std: sample standard deviation")
    for split, mean in scores.mean.items():
        for name, value in mean.items():
            cells = [f"{metrics[split][name]:.4f}" for metrics in scores.metrics.values()]
            table.add_row(f"{split} {name}", *cells, f"{value:.4f}", f"{scores.std[split][name]:.4f}")
    Console().print(table)
    if scores.best is not None:
        _print_line(f"Best {scores.metric} on the validation split: seed {scores.best}, {scores.folder_of(scores.best)}")


def show_trials(report: "TuningReport") -> None:
    """Print a table of the trials of a search, the best first, and the line that trains the best recipe."""
    table = Table("trial", report.metric, "minutes", "values")
    for column in table.columns[:3]:
        column.justify = "right"
    rows = list(enumerate(report.trials, start=1))
    rows.sort(key=lambda row: (row[1] is not report.best, row[1].state != "complete", row[0]))
    for number, trial in rows:
        score = trial.state if trial.score is None else f"{trial.score:.4f}" + (" (stopped)" if trial.state == "pruned" else "")
        table.add_row(str(number), score, f"{trial.minutes:.1f}", trial.describe())
    Console().print(table)
    _print_line(f"Best recipe: {report.recipe}")
    _print_line(f"Train it:    hf-maskattn train {shlex.quote(str(report.recipe))}")


_MAX_CLASSES_SHOWN = 30


def show_class_scores(scores: dict[str, Any]) -> None:
    """Print precision, recall and F1 of each class or type of entity; of the worst ones if there are many."""
    for kind in ("entities", "classes"):
        by_class = scores.get(kind)
        if not by_class:
            continue
        names = list(by_class)
        title = None
        if len(names) > _MAX_CLASSES_SHOWN:
            names = sorted(names, key=lambda name: by_class[name]["f1"])[:_MAX_CLASSES_SHOWN]
            title = f"The {_MAX_CLASSES_SHOWN} of {len(by_class)} {kind} with the lowest F1"
        table = build_table("entity" if kind == "entities" else "class", "precision", "recall", "f1", "support", title=title)
        for name in names:
            *ratios, support = by_class[name].values()
            table.add_row(Text(name), *(f"{value:.4f}" for value in ratios), f"{support:,}")
        Console().print(table)
        return


def show_export(report: "OnnxReport", model: str) -> None:
    """Print the largest difference from PyTorch for each shape, and the size of the file."""
    table = Table("batch x time", "padding", "logits", "attention weights", title="Largest difference of ONNX and PyTorch")
    if any(check.contributions is not None for check in report.checks):
        table.add_column("contributions")
    for check in report.checks:
        differences = [check.logits, check.attentions, *([] if check.contributions is None else [check.contributions])]
        table.add_row(f"{check.shape[0]} x {check.shape[1]}", check.padding, *(f"{value:.1e}" for value in differences))
    for column in table.columns[2:]:
        column.justify = "right"
    Console().print(table)
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
        _print_line(line)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def show_predictions(predictions: Iterable[dict[str, Any]], column: str) -> None:
    """Print a row for each text or list of words, which are in a column of the predictions."""
    table = Table("text", "predictions")
    for prediction in predictions:
        if "error" in prediction:
            cell = f"error: {prediction['error']}"
        else:
            cell = "\n".join(_describe(item) for item in prediction["predictions"])
        if "warning" in prediction:
            cell = f"{cell}\nwarning: {prediction['warning']}"
        text = prediction[column]
        table.add_row(Text(text if isinstance(text, str) else " ".join(text)), Text(cell))
    Console().print(table)


def _describe(item: dict[str, Any]) -> str:
    """Format a prediction: a generated text, or a label, entity or token with its score."""
    if "generated_text" in item:
        return item["generated_text"] + (f" {item['score']:.3f}" if "score" in item else "")
    if "entities" in item:
        return "\n".join([f"{item['label']} {item['score']:.3f}", *map(_describe, item["entities"])])
    label = item.get("label") or item.get("entity_group") or item.get("entity")
    parts = [part for part in (item.get("token_str") or item.get("word"), label) if part]
    return f"{' '.join(parts)} {item['score']:.3f}"


def show_publication(publication: "Publication") -> None:
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
    for line in lines:
        _print_line(line)
