"""The checkpoints of a run: from which one it can go on, and which ones are in the way."""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
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


MANIFEST_FILE = "manifest.json"
_FILES_AT_ONCE = 8
# Windows writes out only what is open for writing.
_TO_SYNC = "r+b" if os.name == "nt" else "rb"


def seal(folder: Path, files: Iterable[Path] | None = None, *, resumable: bool = True) -> None:
    """Write the manifest of a folder in which everything has been written.

    Args:
        folder: The folder.
        files: The files to list; None lists all, those in folders below included.
        resumable: Whether a run can go on from what is in it.

    Raises:
        OSError: If a file cannot be read, or the manifest not be written.
    """
    listed = _all_files(folder) if files is None else files
    paths = sorted(listed)
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:  # a disk takes about as long for many small files as for one
        described = pool.map(_describe, paths)
    entries = {path.relative_to(folder).as_posix(): entry for path, entry in zip(paths, described, strict=True)}
    write_whole(folder / MANIFEST_FILE, json.dumps({"resumable": resumable, "files": entries}, indent=1) + "\n")


def unseal(folder: Path) -> None:
    """Take the manifest away, before anything in the folder is changed or removed."""
    (folder / MANIFEST_FILE).unlink(missing_ok=True)


def is_sealed(folder: Path) -> bool:
    """Tell whether a folder has a manifest; what it lists is not looked at."""
    return (folder / MANIFEST_FILE).is_file()


def is_resumable(folder: Path) -> bool:
    """Tell whether a run can go on from an unharmed folder, or it holds a model alone."""
    return json.loads((folder / MANIFEST_FILE).read_bytes())["resumable"] is True


def find_damage(folder: Path) -> str | None:
    """Compare a folder with its manifest, every byte.

    Args:
        folder: The folder.

    Returns:
        What is wrong, with the name of the file; None if all is as it was written.
    """
    if not is_sealed(folder):
        return f"it was cut off while being written: there is no {MANIFEST_FILE}"
    files = _listed_in(folder / MANIFEST_FILE)
    if files is None:
        return f"{MANIFEST_FILE} is damaged"
    for name, (size, sha256) in files.items():
        path = folder / name
        try:
            found = path.stat().st_size
            if found != size:
                return f"{name} has {found:,} bytes, {size:,} were written"
            if _sha256(path) != sha256:
                return f"{name} has other bytes than were written"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
        except ValueError:  # no file can have that name
            return f"{MANIFEST_FILE} is damaged"
    return None


def _listed_in(manifest_file: Path) -> dict[str, tuple[int, str]] | None:
    """Read size and checksum of each file, by name; None if the manifest is damaged."""
    try:
        manifest = json.loads(manifest_file.read_bytes())
        files = {name: (entry["size"], entry["sha256"]) for name, entry in manifest["files"].items()}
        is_whole = type(manifest["resumable"]) is bool
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    is_whole = is_whole and all((type(size), type(sha256)) == (int, str) for size, sha256 in files.values())
    return files if is_whole else None


def _all_files(folder: Path) -> list[Path]:
    """List files, but the manifest and what is left of one that was cut off while being written."""
    return [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(MANIFEST_FILE)]


def _describe(path: Path) -> dict[str, int | str]:
    # On the disk before the manifest is, or a power cut could leave a manifest of what is not there.
    with path.open(_TO_SYNC) as file:
        os.fsync(file.fileno())
    return {"size": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


logger = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint-(\d+)")


def checkpoints_in(folder: Path) -> dict[Path, int]:
    """List the checkpoints of a run, whole or not, and their steps, the newest first."""
    paths = folder.iterdir() if folder.is_dir() else ()
    steps = {path: int(match[1]) for path in paths if (match := _NAME.fullmatch(path.name)) and path.is_dir()}
    return dict(sorted(steps.items(), key=lambda item: item[1], reverse=True))


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint that a run can go on from, every byte as it was written; warns of each newer one.

    Args:
        folder: Output folder of the run.

    Returns:
        The checkpoint, None if there is none.

    Raises:
        ValueError: If all that are whole hold a model alone.
    """
    passed_over: list[str] = []
    models: list[Path] = []
    for path in checkpoints_in(folder):
        damage = find_damage(path)
        if damage is not None:
            passed_over.append(f"{path} cannot be used ({damage})")
        elif not is_resumable(path):
            models.append(path)
            passed_over.append(f"{path} cannot be resumed (it was saved with training.save_only_model=true)")
        else:
            for text in passed_over:
                logger.warning(f"{text}; going on from {path}.")
            return path
    if models:
        raise ValueError(
            f"{models[0]} was saved with training.save_only_model=true, without what a run needs to go on: train from its "
            f"weights with model.pretrained={models[0]} into another folder, or replace the run with --overwrite."
        )
    for text in passed_over:
        logger.warning(f"{text}; there is no whole checkpoint to go on from.")
    return None


def last_sealed_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint that was written to its end, without reading it."""
    return next((path for path in checkpoints_in(folder) if is_sealed(path)), None)


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, in such an order that what is left of it is never taken for a whole one."""
    unseal(path)
    shutil.rmtree(path)


def rotate(newest: Path, limit: int | None, best: Path | None) -> None:
    """Remove old checkpoints beside one that has just been written to its end.

    Those that were cut off, and those of later steps (left over by a run that went on from before them), go first.

    Args:
        newest: The checkpoint that stays.
        limit: Number of checkpoints to keep; None or 0 keeps all.
        best: Another checkpoint that stays.
    """
    steps = checkpoints_in(newest.parent)
    if limit is None or limit <= 0:
        return
    kept = {newest, best} & steps.keys()
    useless = [path for path in steps if path not in kept and (not is_sealed(path) or steps[path] > steps[newest])]
    useful = [path for path in reversed(steps) if path not in kept and path not in useless]
    for path in [*useless, *useful][: max(0, len(steps) - max(limit, len(kept)))]:
        try:
            remove_checkpoint(path)
        except OSError as error:
            logger.warning(f"The old checkpoint {path} could not be removed: {error}.")
