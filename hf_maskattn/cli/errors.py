"""How a command ends: mistakes of its user as one line, and the exit code; of several processes in only one of them."""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import typer
from rich.console import Console

_SECONDS_TO_BE_ENDED = 30.0


def is_first_process() -> bool:
    """Tell whether this process is the only one or the first of its run."""
    return os.environ.get("RANK", "0") == "0"


def is_one_of_several() -> bool:
    """Tell whether a launcher started several processes."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def report_first_failure_only() -> None:
    """Return in the process that fails first, and wait to be ended in any other one.

    The others fail for the same reason, or because one is gone; their launcher ends them with the first one. Which one is first
    they find out from the store of torchrun and `accelerate launch`, which outlives them. Under another launcher all return.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    from torch.distributed import TCPStore

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=_SECONDS_TO_BE_ENDED))
    if store.add(f"hf_maskattn/failed/{os.environ['TORCHELASTIC_RESTART_COUNT']}", 1) > 1:
        time.sleep(_SECONDS_TO_BE_ENDED)


def write_launcher_error(text: str) -> None:
    """Have the report of a failed run, in which torchrun and `accelerate launch` end, close with what this process said.

    Without it the report says "To enable traceback see ..."; with the exception itself it would print our traceback.

    Args:
        text: The line.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is not None:
        message = {"message": text, "extraInfo": {"timestamp": str(int(time.time()))}}
        with suppress(OSError):  # the line itself was printed
            Path(path).write_text(json.dumps({"message": message}), encoding="utf-8")


MISTAKE = 2
INTERRUPTED = 130


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn the errors that tell a user what to do into `error: ...` and exit code 2, and Ctrl-C into exit code 130."""
    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt as error:
        if is_first_process():
            print_message("Interrupted.")
        raise typer.Exit(INTERRUPTED) from error
    except BrokenPipeError as error:
        # Whoever read our output has gone (`| head`); Python must not try to flush it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from error
    except (ValueError, TypeError, OSError, ImportError) as error:
        report_first_failure_only()
        text = " ".join([f"error: {error}", *getattr(error, "__notes__", ())])
        text = " ".join(text.split())  # what libraries say may have several lines
        print_message(text)
        write_launcher_error(text)
        raise typer.Exit(MISTAKE) from error
    except Exception:
        # Among them is what the end of another process looks like from here.
        report_first_failure_only()
        raise


def print_message(text: str) -> None:
    """Write a line to stderr; a process that is not the first of its run says which it is."""
    sender = "" if is_first_process() else f"process {os.environ['RANK']}: "
    Console(stderr=True).print(sender + text, markup=False, emoji=False, highlight=False, soft_wrap=True)


def show_messages() -> None:
    """Show what this package logs (in one process of several), and hide progress bars of what takes no time."""
    from transformers.utils import logging as transformers_logging

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("hf_maskattn")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO if is_first_process() else logging.ERROR)
    transformers_logging.disable_progress_bar()
