"""The code that travels with the weights: its version, and its place in the folder of a run."""

import filecmp
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from transformers.utils import logging

logger = logging.get_logger(__name__)

CODE_VERSION = "0.1.0"
"""Version of `hf_maskattn` that these files belong to; a saved `config.json` has it as `code_version`."""

REPOSITORY = "https://github.com/hf-maskattn/hf-maskattn"
"""Where the package is installed from, until its name on PyPI is ours."""

_RELEASE = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})")
_CHECKPOINT = re.compile(r"checkpoint-\d+")


def install_command(extra: str | None = None, upgrade: bool = False) -> str:
    """Return the command that installs the package.

    Args:
        extra: Optional dependencies to install with it, such as "examples".
        upgrade: Whether an installed version is replaced.
    """
    source = f"git+{REPOSITORY}" if extra is None else f'"hf-maskattn[{extra}] @ git+{REPOSITORY}"'
    return f"pip install {'--upgrade ' if upgrade else ''}{source}"


def is_newer_version(version: object) -> bool:
    """Whether a version is above `CODE_VERSION`.

    Args:
        version: The `code_version` of a saved model; None if it was saved before there was one.

    Raises:
        ValueError: If it is not a version.
    """
    if version is None:
        return False
    match = _RELEASE.match(version) if isinstance(version, str) else None
    if match is None:
        raise ValueError(f"code_version must be a version such as {CODE_VERSION!r}, got {version!r:.60}.")
    return [int(part) for part in match.groups()] > [int(part) for part in CODE_VERSION.split(".")]


def warn_about_newer_code(version: object) -> None:
    """Warn if a model was saved by newer code than this, whose results this code may not reproduce.

    Transformers uses installed classes even where newer ones lie next to the weights, and says nothing.

    Args:
        version: The `code_version` of a saved model; None if it was saved before there was one.
    """
    try:
        is_newer = is_newer_version(version)
    except ValueError as error:
        logger.warning_once(f"It is not known whether this model was saved by newer code: {error}")
        return
    if is_newer:
        logger.warning_once(
            f"This model was saved by hf_maskattn {version} and is loaded by {CODE_VERSION}: its results may differ. "
            f"To upgrade: {install_command(upgrade=True)}"
        )


def move_code_above_checkpoint(folder: str | os.PathLike, auto_map: Mapping[str, str]) -> None:
    """Move the code in a checkpoint of Trainer to the folder of the run, so that the run holds it once.

    A checkpoint is loaded with the installed package. Trainer publishes the folder of the run at each save: it copies
    configuration and weights of the checkpoint there, but no code, without which these commits would not load elsewhere.

    A file that exists and differs is replaced only next to a `config.json` of the same model family, to which it then
    belongs. Any other is left as it is, with a warning, and the checkpoint keeps its code.

    Args:
        folder: Folder of a model that was just saved; one that is not named like a checkpoint is left alone.
        auto_map: Class for each Auto class, by which a `config.json` of the family is recognized.
    """
    checkpoint = Path(folder).absolute()
    if not _CHECKPOINT.fullmatch(checkpoint.name):
        return
    is_same_family = _read_config_class(checkpoint.parent) == auto_map["AutoConfig"]
    for source in sorted(checkpoint.glob("*.py")):
        target = checkpoint.parent / source.name
        if target.is_file() and filecmp.cmp(source, target, shallow=False):
            source.unlink()  # the target is not replaced: an upload in the background may be reading it
            continue
        if os.path.lexists(target) and not is_same_family:
            logger.warning_once(
                f"{target} is left as it is: it differs from the code of the model in {checkpoint}, and may not be an earlier "
                f"version of it. What Trainer publishes from {checkpoint.parent} will not load without hf_maskattn. Train in "
                "another folder, or rename the file."
            )
            continue
        os.replace(source, target)


def _read_config_class(folder: Path) -> object:
    """Read the configuration class that the model of a folder names; None if there is no such model."""
    try:
        return json.loads((folder / "config.json").read_bytes())["auto_map"]["AutoConfig"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
