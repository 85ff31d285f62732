import io
import logging
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import typer
from rich.table import Table
from torch.distributed import TCPStore
from torch.distributed.elastic.multiprocessing.api import ProcessFailure

from hf_maskattn.cli import console
from hf_maskattn.cli.console import (
    MISTAKE,
    MessageHandler,
    exit_on_error,
    is_first_process,
    is_one_of_several,
    report_first_failure_only,
    show_metrics,
    show_next_steps,
    write_launcher_error,
)
from hf_maskattn.training.results import BestEvaluation, RunReport


@pytest.mark.parametrize("error", [ValueError, TypeError, FileNotFoundError, ImportError])
def test_usage_error_is_one_line(capsys, error):
    with pytest.raises(typer.Exit) as end, exit_on_error():
        raise error("there is no such model\n  Log in with `hf auth login`\n\n")
    assert end.value.exit_code == MISTAKE
    assert capsys.readouterr().err == "error: there is no such model Log in with `hf auth login`\n"


def test_bug_keeps_traceback():
    with pytest.raises(KeyError), exit_on_error():
        raise KeyError("bug")


@pytest.fixture
def slept(monkeypatch):
    """Seconds for which this process would have slept."""
    seconds = []
    monkeypatch.setattr(console.time, "sleep", seconds.append)
    return seconds


def test_single_process_reports(slept):
    assert is_first_process()
    assert not is_one_of_several()
    report_first_failure_only()
    assert not slept


def test_rank_and_world_size_are_read(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not is_first_process()
    assert is_one_of_several()


def test_first_failed_process_reports(monkeypatch, slept):
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for name, value in {
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
    }.items():
        monkeypatch.setenv(name, value)
    report_first_failure_only()
    assert not slept
    report_first_failure_only()
    assert len(slept) == 1
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    report_first_failure_only()
    assert len(slept) == 1


def test_launcher_error_file(monkeypatch, tmp_path):
    write_launcher_error("error: this row is broken")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    write_launcher_error("error: this row is broken")
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(tmp_path / "error.json"))
    assert failure.message["message"] == "error: this row is broken"
    assert failure.timestamp > 0
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "gone" / "error.json"))
    write_launcher_error("error: this row is broken")


class Message(str):
    def __rich__(self):
        table = Table(show_header=False)
        table.add_row(str(self))
        return table


@pytest.mark.parametrize(("is_terminal", "num_lines"), [(True, 3), (False, 1)])
def test_tables_of_messages_are_for_terminals(is_terminal, num_lines):
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal
    handler = MessageHandler(stream)
    handler.handle(logging.LogRecord("hf_maskattn", logging.INFO, "", 0, Message("rows 40"), None, None))
    handler.handle(logging.LogRecord("hf_maskattn", logging.INFO, "", 0, "rows 40", None, None))
    assert "rows 40" in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == num_lines + 1


@pytest.fixture
def shown(capsys, monkeypatch):
    """Prints a report as the command `train` does, and returns the lines."""
    monkeypatch.setenv("COLUMNS", "200")

    def show(**changes):
        metrics = {"train": {"loss": 0.5, "runtime": 3725.0}, "validation": {"loss": 0.25, "accuracy": 0.75, "runtime": 0.2}}
        best = BestEvaluation(step=465, epoch=3.0, metric="accuracy", value=0.75)
        report = RunReport(Path("runs/my run"), metrics, True, best=best, example="it's good")
        report = replace(report, **changes)
        show_metrics(report, "text-classification")
        show_next_steps(report)
        return capsys.readouterr().out.splitlines()

    return show


def test_results_name_the_best_epoch_and_the_next_commands(shown):
    lines = shown()
    assert [cell.strip() for cell in lines[1].strip("┃").split("┃")] == ["split", "loss", "accuracy", "time"]
    assert [cell.strip() for cell in lines[3].strip("│").split("│")] == ["train", "0.5", "", "1:02:05"]
    assert lines[6:] == [
        "Best:  epoch 3, step 465, with accuracy 0.75 on the validation split",
        "Model: runs/my run",
        'Load:  import hf_maskattn, transformers; transformers.pipeline("text-classification", model="runs/my run")',
        "Next:  hf-maskattn predict 'runs/my run' --text 'it'\"'\"'s good'",
        "       hf-maskattn evaluate 'runs/my run' --split validation",
        "       hf-maskattn push 'runs/my run' NAME",
    ]


def test_next_commands_fit_the_run(shown):
    lines = shown(best=None, example=None, metrics={"train": {"loss": 0.5}}, publication=Mock())
    assert not any(line.startswith("Best") for line in lines)
    assert lines[-1] == "Next:  hf-maskattn predict 'runs/my run' --text TEXT"
    assert shown(metrics={"train": {}, "test": {"loss": 1.0}})[-2] == "       hf-maskattn evaluate 'runs/my run'"
