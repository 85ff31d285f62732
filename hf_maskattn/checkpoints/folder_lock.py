"""One run at a time in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from hf_maskattn.checkpoints.whole_files import reason

LOCK_FILE = "_run.lock"
"""Trainer leaves files with an underscore out of what it pushes to the Hub."""


@contextmanager
def held_alone(folder: Path) -> Iterator[None]:
    """Hold a folder until the block ends, or the process does, however that happens.

    Args:
        folder: The folder, made if there is none; one that was made is gone again if nothing was written to it.

    Yields:
        Nothing.

    Raises:
        ValueError: If another process holds it, or it is a file.
        OSError: If it cannot be made or written to; names the way out.
    """
    is_new = not folder.exists()
    if folder.is_file():
        raise ValueError(f"training.output_dir={str(folder)!r} is a file, give the name of a folder.")
    lock = FileLock(folder / LOCK_FILE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"another run is at work in {folder}: wait until it has ended or stop it, or name another folder with "
            "training.output_dir=FOLDER."
        ) from error
    except OSError as error:
        raise OSError(
            f"training.output_dir must be a folder that can be written to, got {str(folder)!r} ({reason(error)}). Name another "
            "one with training.output_dir=FOLDER."
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            # While it is held: whoever opened the file before finds that it is gone, and takes a new one.
            (folder / LOCK_FILE).unlink()
        lock.release()
        if is_new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
