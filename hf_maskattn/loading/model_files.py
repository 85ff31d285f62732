"""Finds the files of a model, in its folder or on the Hub, and never takes a Hub that is silent for one that says no."""

from pathlib import Path

from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache
from huggingface_hub.utils import httpx
from transformers.utils import CONFIG_NAME, cached_file


def find_file(name_or_folder: str | Path, file: str) -> str | None:
    """Find a file of a model.

    Args:
        name_or_folder: Folder of the model, or its name on the Hub.
        file: Name of the file.

    Returns:
        Where it is; None if there is none, or none in the cache and the Hub cannot be asked.

    Raises:
        OSError: If there is no such model, or the Hub breaks off in the middle.
    """
    try:
        return cached_file(name_or_folder, file, _raise_exceptions_for_missing_entries=False)
    except httpx.HTTPError as error:
        raise _broken_off(name_or_folder, file, error) from error


def has_file(name_or_folder: str | Path, file: str) -> bool:
    """Tell whether a model has a file.

    Args:
        name_or_folder: Folder of the model, or its name on the Hub.
        file: Name of the file.

    Returns:
        Whether it has.

    Raises:
        OSError: If there is no such model, or the Hub does not say.
    """
    try:
        return cached_file(name_or_folder, file) is not None
    except OSError as error:
        # An error with a cause comes from the way to the Hub, and not from a file that is not there.
        if error.__cause__ is None or try_to_load_from_cache(str(name_or_folder), file) is _CACHED_NO_EXIST:
            return False
        raise
    except httpx.HTTPError as error:
        raise _broken_off(name_or_folder, file, error) from error


def newest_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint with a model in the folder of a run that was stopped.

    Args:
        folder: The output folder of the run.

    Returns:
        The checkpoint of the largest step, None if there is none.
    """
    found = [path.parent for path in folder.glob(f"checkpoint-*/{CONFIG_NAME}")]
    steps = {path: path.name.removeprefix("checkpoint-") for path in found}
    return max((path for path, step in steps.items() if step.isdecimal()), key=lambda path: int(steps[path]), default=None)


def use_checkpoint(checkpoint: Path) -> str:
    """Say what to do with the checkpoint of a run that was stopped, where a model is asked for."""
    return (
        f"its run was stopped. Give its newest checkpoint instead, {checkpoint}, or finish the run with hf-maskattn train "
        "RECIPE --resume"
    )


def _broken_off(name_or_folder: str | Path, file: str, error: Exception) -> OSError:
    return OSError(f"the Hub broke off when {file} of {name_or_folder} was asked for: {error}")
