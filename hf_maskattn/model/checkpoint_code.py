"""Code for the commits that Trainer makes while it trains."""

import filecmp
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from transformers.utils import logging

logger = logging.get_logger(__name__)

_CHECKPOINT = re.compile(r"checkpoint-\d+")


def carry_code_above_checkpoint(folder: str | os.PathLike, auto_map: Mapping[str, str]) -> None:
    """Put the code of a checkpoint of Trainer also into the folder above it.

    That one is what Trainer publishes at each save. It copies configuration and weights of the checkpoint to it, from a list
    of names that has no code, so that nobody could load these commits without the package.

    A file that is there and differs is replaced only beside a `config.json` of the same family of models, whose code it then
    is; any other is left as it is, and the log says so.

    Args:
        folder: Folder of a model that was just saved; any that is not named like a checkpoint is left alone.
        auto_map: Class for each Auto class, by which a `config.json` of the family is known.
    """
    checkpoint = Path(folder).absolute()
    if not _CHECKPOINT.fullmatch(checkpoint.name):
        return
    is_ours = _config_class(checkpoint.parent) == auto_map["AutoConfig"]
    for source in sorted(checkpoint.glob("*.py")):
        target = checkpoint.parent / source.name
        if target.is_file() and filecmp.cmp(source, target, shallow=False):
            continue  # an upload in the background may be reading it
        if os.path.lexists(target) and not is_ours:
            logger.warning_once(
                f"{target} is left as it is: it differs from the code of the model in {checkpoint}, and nothing says that it "
                f"is an earlier one of it. What Trainer publishes from {checkpoint.parent} will not load without hf_maskattn; "
                "train in another folder, or rename the file."
            )
            continue
        shutil.copyfile(source, target)


def _config_class(folder: Path) -> object:
    """Find the class of configuration that the model of a folder names; None if there is no such model."""
    try:
        return json.loads((folder / "config.json").read_bytes())["auto_map"]["AutoConfig"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
