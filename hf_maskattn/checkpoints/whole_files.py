"""Small files that are there as a whole or not at all, whatever happens while they are written."""

import os
from pathlib import Path

from safetensors import SafetensorError


def write_whole(path: Path, text: str) -> None:
    """Write a text file under another name, then put it in place in one step.

    Until then, what was there before stays; afterwards, not even a power cut takes it back.

    Args:
        path: The file, in a folder that exists.
        text: Its content.

    Raises:
        OSError: If it cannot be written; names the file.
    """
    scratch = scratch_of(path)
    try:
        with scratch.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise OSError(f"{path} could not be written: {reason(error)}.") from error


def scratch_of(path: Path) -> Path:
    """Name the file that is left where `write_whole` was cut off."""
    return path.with_name(path.name + ".part")


def reason(error: Exception) -> str:
    """Say in a few words why a file could not be written."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()).rstrip(".")


def is_write_failure(error: Exception) -> bool:
    """Tell whether an error came from a file that could not be written, not from a network or a mistake in a program.

    torch and tokenizers raise a RuntimeError and an Exception, with nothing but words to tell them by.
    """
    if isinstance(error, OSError):
        return error.errno is not None
    words = ("os error", "PytorchStreamWriter", "inline_container", "file write failed", "iostream error")
    return isinstance(error, SafetensorError) or any(word in str(error) for word in words)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # has no file descriptors of folders
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
