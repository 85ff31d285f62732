"""Looks for the local files of a recipe before anything is imported that takes time."""

import glob
from collections.abc import Iterable
from pathlib import Path

from hf_maskattn.data.files import expand_pattern
from hf_maskattn.recipes.recipe import Recipe


def check_local_files(recipe: Recipe, splits: Iterable[str] = ("train", "validation", "test")) -> None:
    """Refuse a recipe that names a file that does not exist; what is in the files is checked when they are read.

    Args:
        recipe: The recipe.
        splits: The splits that are read.

    Raises:
        FileNotFoundError: If a file does not exist, or no file fits a pattern; names the key and where it was looked for.
    """
    for key in (f"{split}_file" for split in splits):
        name = getattr(recipe.data, key)
        if name is None or Path(name).exists() or expand_pattern(name):
            continue
        what = "no file fits this pattern" if glob.has_magic(name) else "there is no such file"
        raise FileNotFoundError(
            f"data.{key}={name!r}: {what}, seen from {Path.cwd()}. Correct the path, or start the command in another folder."
        )
