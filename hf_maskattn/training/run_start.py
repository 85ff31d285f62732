"""How a run begins: in an empty folder, where another one stopped, or not at all because it is finished."""

import logging
from enum import Enum
from pathlib import Path

from hf_maskattn.checkpoints.checkpoints import last_whole_checkpoint
from hf_maskattn.checkpoints.output_folder import RECIPE_FILE, is_finished, remove_run, reopen, require_empty, require_run
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.recipes.resolved_recipe import changed_keys, write_recipe

logger = logging.getLogger(__name__)


class Start(Enum):
    """What to do with what lies in the output folder."""

    REFUSE = "refuse"
    RESUME = "resume"
    OVERWRITE = "overwrite"


FINISHED = Path()
"""Stands for the checkpoint of a run with nothing left to do."""


def check_folder(folder: Path, recipe: Recipe, start: Start) -> None:
    """Refuse an output folder that a run may not go to, before anything costly is done.

    Args:
        folder: The output folder.
        recipe: The recipe.
        start: What to do with what lies there.

    Raises:
        ValueError: If it holds anything and nothing was said, if it holds something but no run that could be resumed or
            replaced, or if a run is to be resumed with another model or data.
    """
    if start is Start.REFUSE:
        require_empty(folder)
        return
    require_run(folder)
    if start is Start.RESUME and (folder / RECIPE_FILE).is_file():
        for key, (old, new) in changed_keys(recipe, folder / RECIPE_FILE).items():
            if not key.startswith("training."):
                raise ValueError(
                    f"{folder} holds a run with {key}={old!r}, the recipe says {new!r}: resume with the recipe of the run "
                    f"({folder / RECIPE_FILE}), or replace the run with --overwrite."
                )


def starting_point(folder: Path, recipe: Recipe, start: Start) -> Path | None:
    """Find where a run begins.

    Args:
        folder: The output folder, checked.
        recipe: The recipe.
        start: What to do with what lies there.

    Returns:
        The checkpoint to go on from, None to begin at the beginning, `FINISHED` if there is nothing left to do.

    Raises:
        ValueError: If all that a run could go on from is a model alone, or the model of a finished run is damaged.
    """
    if start is not Start.RESUME:
        return None
    stored = folder / RECIPE_FILE
    changes = changed_keys(recipe, stored) if stored.is_file() else {}
    if is_finished(folder) and stored.is_file() and not changes:
        logger.info(f"The run in {folder} is finished, nothing is left to do.")
        return FINISHED
    for key, (old, new) in changes.items():
        logger.warning(f"{key} was {old!r} and is {new!r} from here on.")
    checkpoint = last_whole_checkpoint(folder)
    if checkpoint is None:
        logger.warning(f"There is no checkpoint in {folder} to go on from, training starts from the beginning.")
    else:
        logger.info(f"Going on from {checkpoint}.")
    return checkpoint


def begin(folder: Path, recipe: Recipe, start: Start) -> None:
    """Clear the folder of what the run replaces, and write down the recipe.

    This is done when everything is ready to train, so that a mistake in a recipe does not cost the run it would replace.
    """
    if start is Start.OVERWRITE:
        remove_run(folder)
    reopen(folder)
    write_recipe(recipe, folder / RECIPE_FILE)
