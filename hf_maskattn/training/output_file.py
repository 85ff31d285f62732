"""The place of a file that a command is to write."""

from pathlib import Path


def require_place(path: Path, overwrite: bool) -> None:
    """Refuse a path that no file can be written to, before anything costly is done.

    Args:
        path: The file to write.
        overwrite: Whether to replace a file.

    Raises:
        FileNotFoundError: If its folder does not exist.
        ValueError: If it is a folder, or a file that is not to be replaced.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to: make it, or name another.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, give the name of a file.")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists: replace it with --overwrite, or name another file.")
