"""How a command ends: mistakes of its user as one line, and the exit code."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

MISTAKE = 2
INTERRUPTED = 130


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Turn the errors that tell a user what to do into `error: ...` and exit code 2, and Ctrl-C into exit code 130."""
    try:
        yield
    except KeyboardInterrupt as error:
        say("Interrupted.")
        raise typer.Exit(INTERRUPTED) from error
    except BrokenPipeError as error:
        # Whoever read our output has gone (`| head`); Python must not try to flush it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from error
    except (ValueError, TypeError, OSError, ImportError) as error:
        text = " ".join([f"error: {error}", *getattr(error, "__notes__", ())])
        say(" ".join(text.split()))  # what libraries say may have several lines
        raise typer.Exit(MISTAKE) from error


def say(text: str) -> None:
    """Write a line to stderr, from one process of a distributed run."""
    if os.environ.get("RANK", "0") == "0":
        Console(stderr=True).print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
