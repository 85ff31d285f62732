"""The code that travels with the weights: its version, and its place in the folder of a run."""

import filecmp
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from transformers.utils import logging

logger = logging.get_logger(__name__)

CODE_VERSION = "0.2.0"
"""Version of `hf_maskattn` of these files, the `code_version` of a saved `config.json`."""

REPOSITORY = "https://github.com/hf-maskattn/hf-maskattn"
"""Repository that the package is installed from."""

_RELEASE = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})")
_CHECKPOINT = re.compile(r"checkpoint-\d+")


def install_command(extra: str | None = None, upgrade: bool = False) -> str:
    """Return the command that installs the package.

    Args:
        extra: Optional dependencies, such as "examples".
        upgrade: Whether to replace an installed version.
    """
    source = f"git+{REPOSITORY}" if extra is None else f'"hf-maskattn[{extra}] @ git+{REPOSITORY}"'
    return f"pip install {'--upgrade ' if upgrade else ''}{source}"


def is_newer_version(version: object) -> bool:
    """Return whether a version is newer than `CODE_VERSION`.

    Args:
        version: The `code_version` of a saved model; None for models that have none.

    Raises:
        ValueError: If `version` is not a version.
    """
    if version is None:
        return False
    match = _RELEASE.match(version) if isinstance(version, str) else None
    if match is None:
        raise ValueError(f"code_version must be a version such as {CODE_VERSION!r}, got {version!r:.60}.")
    return [int(part) for part in match.groups()] > [int(part) for part in CODE_VERSION.split(".")]


def warn_about_newer_code(version: object) -> None:
    """Warn if a model was saved by newer code, whose results this code may not reproduce.

    transformers uses installed classes without a warning, even if newer ones are saved with the weights.

    Args:
        version: The `code_version` of a saved model; None for models that have none.
    """
    try:
        is_newer = is_newer_version(version)
    except ValueError as error:
        logger.warning_once(f"The version of this model is unknown: {error}")
        return
    if is_newer:
        logger.warning_once(
            f"This model was saved by hf_maskattn {version} and is loaded by {CODE_VERSION}. Its results may differ. "
            f"To upgrade: {install_command(upgrade=True)}"
        )


def move_code_above_checkpoint(folder: str | os.PathLike, auto_map: Mapping[str, str]) -> None:
    """Move the code in a checkpoint of Trainer to the folder of the run, so that the run holds it once.

    A checkpoint is loaded with the installed package. Trainer publishes the folder of the run at each save: it copies only
    configuration and weights of the checkpoint there, and without the code these commits would not load elsewhere.

    An existing file with other contents is replaced only if the `config.json` next to it is of the same model family.
    Otherwise it is kept with a warning, and the checkpoint keeps its code.

    Args:
        folder: Folder of a model that was just saved. Nothing is moved unless it has the name of a checkpoint.
        auto_map: Class for each Auto class, which identifies the model family.
    """
    checkpoint = Path(folder).absolute()
    if not _CHECKPOINT.fullmatch(checkpoint.name):
        return
    is_same_family = _read_config_class(checkpoint.parent) == auto_map["AutoConfig"]
    for source in sorted(checkpoint.glob("*.py")):
        target = checkpoint.parent / source.name
        if target.is_file() and filecmp.cmp(source, target, shallow=False):
            source.unlink()  # the target is not replaced, because an upload in the background may be reading it
            continue
        if os.path.lexists(target) and not is_same_family:
            logger.warning_once(
                f"{target} differs from the code of the model in {checkpoint} and is kept, since it may not be an earlier "
                f"version of it. Commits from {checkpoint.parent} will not load without hf_maskattn. Set another output "
                "folder, or rename the file."
            )
            continue
        os.replace(source, target)


def _read_config_class(folder: Path) -> object:
    """Read the configuration class from the `config.json` of a folder; None if there is none."""
    try:
        return json.loads((folder / "config.json").read_bytes())["auto_map"]["AutoConfig"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
