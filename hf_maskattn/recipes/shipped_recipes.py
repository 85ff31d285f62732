"""The recipes that come with this package, found by name."""

from pathlib import Path

_FOLDERS = ("configs", "../configs")
"""Folder of the recipes, seen from the package: where it is installed, and in a clone."""


def shipped_recipes() -> dict[str, Path]:
    """List the recipes that come with this package.

    Returns:
        The file of each recipe, by its name: the name of the file without its suffix.
    """
    package = Path(__file__).parents[1]
    files = (file for folder in _FOLDERS for file in sorted((package / folder).glob("*.yaml")))
    return {file.stem: file.resolve() for file in files}


def describe_recipe(path: Path) -> str:
    """Read what a shipped recipe is for: the first line of its comment.

    Args:
        path: The file of the recipe.

    Returns:
        The line, without `#`.
    """
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()
