import pytest
import typer
from torch.distributed import TCPStore
from torch.distributed.elastic.multiprocessing.api import ProcessFailure

from hf_maskattn.cli import errors as processes
from hf_maskattn.cli.errors import (
    MISTAKE,
    is_first_process,
    is_one_of_several,
    let_the_first_to_fail_speak,
    name_the_cause_to_the_launcher,
    told_in_one_line,
)


@pytest.mark.parametrize("error", [ValueError, TypeError, FileNotFoundError, ImportError])
def test_a_mistake_is_told_in_one_line(capsys, error):
    with pytest.raises(typer.Exit) as end, told_in_one_line():
        raise error("there is no such model\n  Log in with `hf auth login`\n\n")
    assert end.value.exit_code == MISTAKE
    assert capsys.readouterr().err == "error: there is no such model Log in with `hf auth login`\n"


def test_a_defect_is_not_hidden():
    with pytest.raises(KeyError), told_in_one_line():
        raise KeyError("defect")


@pytest.fixture
def waited(monkeypatch):
    """Seconds for which this process would have waited to be ended."""
    seconds = []
    monkeypatch.setattr(processes.time, "sleep", seconds.append)
    return seconds


def test_a_process_alone_is_the_first_and_speaks(waited):
    assert is_first_process()
    assert not is_one_of_several()
    let_the_first_to_fail_speak()
    assert not waited


def test_a_launcher_tells_a_process_which_it_is(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not is_first_process()
    assert is_one_of_several()


def test_of_several_processes_the_one_that_fails_first_speaks(monkeypatch, waited):
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for name, value in {
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
    }.items():
        monkeypatch.setenv(name, value)
    let_the_first_to_fail_speak()
    assert not waited
    let_the_first_to_fail_speak()
    assert len(waited) == 1
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    let_the_first_to_fail_speak()
    assert len(waited) == 1


def test_the_launcher_reads_the_cause(monkeypatch, tmp_path):
    name_the_cause_to_the_launcher("error: this row is broken")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    name_the_cause_to_the_launcher("error: this row is broken")
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(tmp_path / "error.json"))
    assert failure.message["message"] == "error: this row is broken"
    assert failure.timestamp > 0
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "gone" / "error.json"))
    name_the_cause_to_the_launcher("error: this row is broken")
