"""The checkpoints of a run: from which one it can go on, and which ones are in the way."""

import logging
import re
import shutil
from pathlib import Path

from hf_maskattn.checkpoints.manifest import find_damage, is_resumable, is_sealed, unseal

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
