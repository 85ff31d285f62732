"""Code for the commits that Trainer makes while it trains."""

import filecmp
import os
import re
import shutil
from pathlib import Path

_CHECKPOINT = re.compile(r"checkpoint-\d+")


def carry_code_above_checkpoint(folder: str | os.PathLike) -> None:
    """Put the code of a checkpoint of Trainer also into the folder above it.

    That one is what Trainer publishes at each save. It copies configuration and weights of the checkpoint to it, from a list
    of names that has no code, so that nobody could load these commits without the package.

    Args:
        folder: Folder of a model that was just saved; any that is not named like a checkpoint is left alone.
    """
    checkpoint = Path(folder).absolute()
    if not _CHECKPOINT.fullmatch(checkpoint.name):
        return
    for source in checkpoint.glob("*.py"):
        target = checkpoint.parent / source.name
        # An upload in the background may be reading a file that is there.
        if not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
            shutil.copyfile(source, target)
