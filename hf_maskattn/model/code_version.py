"""The version of the files in this folder: told to a saved model, and compared with what a loaded one was saved by."""

import re

from transformers.utils import logging

logger = logging.get_logger(__name__)

CODE_VERSION = "0.1.0"
"""Version of `hf_maskattn` that these files are part of; a saved `config.json` names it as `code_version`."""

REPOSITORY = "https://github.com/hf-maskattn/hf-maskattn"
"""Where this package is installed from: its name on PyPI is not ours yet."""

_RELEASE = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})")


def install_command(extra: str | None = None, upgrade: bool = False) -> str:
    """Write the command that installs this package.

    Args:
        extra: Optional dependencies to install with it, such as "examples".
        upgrade: Whether an installed version is replaced.
    """
    source = f"git+{REPOSITORY}" if extra is None else f'"hf-maskattn[{extra}] @ git+{REPOSITORY}"'
    return f"pip install {'--upgrade ' if upgrade else ''}{source}"


def is_newer_than_this_code(version: object) -> bool:
    """Tell whether a version is above `CODE_VERSION`.

    Args:
        version: The `code_version` of a saved model; None if it was saved before there was one.

    Raises:
        ValueError: If it is no version.
    """
    if version is None:
        return False
    match = _RELEASE.match(version) if isinstance(version, str) else None
    if match is None:
        raise ValueError(f"code_version={version!r:.60} is no version, expected something like {CODE_VERSION!r}.")
    return [int(part) for part in match.groups()] > [int(part) for part in CODE_VERSION.split(".")]


def warn_of_newer_code(version: object) -> None:
    """Warn if a model was saved by newer code than this, whose results this code may not give.

    Transformers takes installed classes even where newer ones lie beside the weights, and says nothing.

    Args:
        version: The `code_version` of a saved model; None if it was saved before there was one.
    """
    try:
        is_newer = is_newer_than_this_code(version)
    except ValueError as error:
        logger.warning_once(f"Whether this model was saved by newer code is not known: {error}")
        return
    if is_newer:
        logger.warning_once(
            f"This model was saved by hf_maskattn {version}, and is loaded by {CODE_VERSION}: its results may differ. "
            f"To upgrade: {install_command(upgrade=True)}"
        )
