"""How a command ends: mistakes of its user as one line, and the exit code; of several processes in only one of them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from hf_maskattn.cli.processes import is_first_process, let_the_first_to_fail_speak, name_the_cause_to_the_launcher

MISTAKE = 2
INTERRUPTED = 130


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Turn the errors that tell a user what to do into `error: ...` and exit code 2, and Ctrl-C into exit code 130."""
    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt as error:
        if is_first_process():
            say("Interrupted.")
        raise typer.Exit(INTERRUPTED) from error
    except BrokenPipeError as error:
        # Whoever read our output has gone (`| head`); Python must not try to flush it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from error
    except (ValueError, TypeError, OSError, ImportError) as error:
        let_the_first_to_fail_speak()
        text = " ".join([f"error: {error}", *getattr(error, "__notes__", ())])
        text = " ".join(text.split())  # what libraries say may have several lines
        say(text)
        name_the_cause_to_the_launcher(text)
        raise typer.Exit(MISTAKE) from error
    except Exception:
        # Among them is what the end of another process looks like from here.
        let_the_first_to_fail_speak()
        raise


def say(text: str) -> None:
    """Write a line to stderr; a process that is not the first of its run says which it is."""
    sender = "" if is_first_process() else f"process {os.environ['RANK']}: "
    Console(stderr=True).print(sender + text, markup=False, emoji=False, highlight=False, soft_wrap=True)
