"""Checkpoints: atomic writes, a manifest of checksums for each, and which one to resume from."""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError

logger = logging.getLogger(__name__)

MANIFEST_FILE = "manifest.json"
_NAME = re.compile(r"checkpoint-(\d+)")
_NUM_THREADS = 8
# Windows syncs only files that are open for writing.
_SYNC_MODE = "r+b" if os.name == "nt" else "rb"


def write_atomically(path: Path, text: str) -> None:
    """Write a text file to a temporary file in its folder, which exists, then rename it.

    The previous file stays until the new one is complete, also after a power failure.

    Raises:
        OSError: If it cannot be written. The message names the file.
    """
    scratch = partial_path(path)
    try:
        with scratch.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise OSError(f"{path} could not be written: {summarize_error(error)}.") from error


def partial_path(path: Path) -> Path:
    """Return the temporary file of `write_atomically`, which stays if the process is killed."""
    return path.with_name(path.name + ".part")


def summarize_error(error: Exception) -> str:
    """Return in a few words why a file could not be written."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()).rstrip(".")


def is_write_error(error: Exception) -> bool:
    """Whether an error comes from a file that could not be written, not from a network or a bug.

    torch and tokenizers raise a RuntimeError and an Exception, which only their messages distinguish.
    """
    if isinstance(error, OSError):
        return error.errno is not None
    words = ("os error", "PytorchStreamWriter", "inline_container", "file write failed", "iostream error")
    return isinstance(error, SafetensorError) or any(word in str(error) for word in words)


def write_manifest(folder: Path, files: Iterable[Path] | None = None, *, resumable: bool = True) -> None:
    """Write size and SHA-256 of each file to a manifest, which marks a folder as complete.

    Args:
        folder: The folder.
        files: The files to list. None lists all, including those in subfolders.
        resumable: Whether a run can be resumed from the folder.

    Raises:
        OSError: If a file cannot be read, or the manifest cannot be written.
    """
    paths = sorted(_list_files(folder) if files is None else files)
    with ThreadPoolExecutor(_NUM_THREADS) as pool:  # a disk syncs many small files in about the time of one
        described = list(pool.map(_describe_file, paths))
    entries = {path.relative_to(folder).as_posix(): entry for path, entry in zip(paths, described, strict=True)}
    content = {"resumable": resumable, "files": entries}
    write_atomically(folder / MANIFEST_FILE, json.dumps(content, indent=1) + "\n")


def remove_manifest(folder: Path) -> None:
    """Mark a folder as incomplete, before anything in it is changed or removed."""
    (folder / MANIFEST_FILE).unlink(missing_ok=True)


def is_complete(folder: Path) -> bool:
    """Whether a folder has a manifest. Its files are not verified."""
    return (folder / MANIFEST_FILE).is_file()


def is_resumable(folder: Path) -> bool:
    """Whether a verified folder holds all that a run needs to resume, not the model only."""
    return json.loads((folder / MANIFEST_FILE).read_bytes())["resumable"] is True


def find_damage(folder: Path) -> str | None:
    """Verify all files of a folder against its manifest. Return the first problem, with the name of the file, or None."""
    if not is_complete(folder):
        return f"it is incomplete: there is no {MANIFEST_FILE}"
    files = _read_manifest(folder / MANIFEST_FILE)
    if files is None:
        return f"{MANIFEST_FILE} is damaged"
    for name, (size, sha256) in files.items():
        path = folder / name
        try:
            actual_size = path.stat().st_size
            if actual_size != size:
                return f"{name} has {actual_size:,} bytes, expected {size:,}"
            if _hash_file(path) != sha256:
                return f"the checksum of {name} does not match"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
        except ValueError:  # no file can have this name
            return f"{MANIFEST_FILE} is damaged"
    return None


def list_checkpoints(folder: Path) -> dict[Path, int]:
    """List the checkpoints of a run, complete or not, with their steps, newest first."""
    paths = folder.iterdir() if folder.is_dir() else ()
    steps = {path: int(match[1]) for path in paths if (match := _NAME.fullmatch(path.name)) and path.is_dir()}
    return dict(sorted(steps.items(), key=lambda item: item[1], reverse=True))


def find_resume_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint that a run can be resumed from, and verify it. Warn about each newer one.

    Returns:
        The checkpoint. None if there is none.

    Raises:
        ValueError: If all undamaged checkpoints hold the model only.
    """
    skipped: list[str] = []
    model_only: list[Path] = []
    for path in list_checkpoints(folder):
        damage = find_damage(path)
        if damage is not None:
            skipped.append(f"{path} cannot be used ({damage})")
        elif not is_resumable(path):
            model_only.append(path)
            skipped.append(f"{path} cannot be resumed (it was saved with training.save_only_model=true)")
        else:
            for text in skipped:
                logger.warning(f"{text}. Resuming from {path}.")
            return path
    if model_only:
        raise ValueError(
            f"{model_only[0]} was saved with training.save_only_model=true, without the state that a run needs to resume. "
            f"Train from its weights with model.pretrained={model_only[0]} in another folder, or replace the run with "
            "--overwrite."
        )
    for text in skipped:
        logger.warning(f"{text}. There is no complete checkpoint to resume from.")
    return None


def find_last_complete_checkpoint(folder: Path) -> Path | None:
    """Find the newest complete checkpoint, without verifying its files."""
    return next((path for path in list_checkpoints(folder) if is_complete(path)), None)


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, manifest first, so that a partly removed one is never used."""
    remove_manifest(path)
    shutil.rmtree(path)


def rotate_checkpoints(newest: Path, limit: int | None, best: Path | None) -> None:
    """Remove old checkpoints after a new one is complete.

    Incomplete checkpoints go first, with those of later steps, which a run leaves behind that was resumed from an earlier step.
    The function of this name in transformers keeps such a leftover as the newest checkpoint and removes the new one (see the
    tests). It also removes a manifest and its files in any order, so that a killed run could leave a damaged checkpoint.

    Args:
        newest: The checkpoint that was just written. It stays.
        limit: Number of checkpoints to keep. None or 0 keeps all.
        best: Another checkpoint that stays.
    """
    steps = list_checkpoints(newest.parent)
    if limit is None or limit <= 0:
        return
    kept = {newest, best} & steps.keys()
    leftovers = [path for path in steps if path not in kept and (not is_complete(path) or steps[path] > steps[newest])]
    oldest_first = [path for path in reversed(steps) if path not in kept and path not in leftovers]
    remove_checkpoints([*leftovers, *oldest_first][: max(0, len(steps) - max(limit, len(kept)))])


def clean_checkpoints(folder: Path, keep: Literal["best_and_last", "all", "none"], best: Path | None) -> None:
    """Remove the checkpoints of a finished run that are not kept; the best one is None if it is not known."""
    if keep == "all":
        return
    kept = {best, find_last_complete_checkpoint(folder)} if keep == "best_and_last" else set()
    remove_checkpoints(path for path in list_checkpoints(folder) if path not in kept)


def remove_checkpoints(checkpoints: Iterable[Path]) -> None:
    """Remove checkpoints. Warn about each that cannot be removed."""
    for path in checkpoints:
        try:
            remove_checkpoint(path)
        except OSError as error:
            logger.warning(f"The old checkpoint {path} could not be removed: {error}.")


def incomplete_folder_error(folder: Path, error: Exception) -> OSError:
    """Build the error for a folder that could not be written completely.

    It has the folder, the file that was written last, which the error of a library often does not name, and the free space.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    last = max(files, key=lambda path: path.stat().st_mtime_ns, default=folder)
    free = shutil.disk_usage(folder if folder.is_dir() else folder.parent).free / 2**20
    return OSError(
        f"{folder} could not be written completely ({last.name}: {summarize_error(error)}). The disk has {free:,.0f} MiB of "
        "free space."
    )


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # has no file descriptors of folders
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_manifest(path: Path) -> dict[str, tuple[int, str]] | None:
    """Read size and checksum of each file by name. None if the manifest is damaged."""
    try:
        manifest = json.loads(path.read_bytes())
        files = {name: (entry["size"], entry["sha256"]) for name, entry in manifest["files"].items()}
        is_valid = type(manifest["resumable"]) is bool
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    is_valid = is_valid and all((type(size), type(sha256)) == (int, str) for size, sha256 in files.values())
    return files if is_valid else None


def _list_files(folder: Path) -> list[Path]:
    """List all files but the manifest and its temporary file."""
    return [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(MANIFEST_FILE)]


def _describe_file(path: Path) -> dict[str, int | str]:
    # Synced before the manifest is written: a power failure must not leave a manifest without its files.
    with path.open(_SYNC_MODE) as file:
        os.fsync(file.fileno())
    return {"size": path.stat().st_size, "sha256": _hash_file(path)}


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
