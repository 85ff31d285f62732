"""The list of what was written to a folder, with checksums: written last, it tells that all is there and unharmed."""

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hf_maskattn.checkpoints.whole_files import write_whole

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
