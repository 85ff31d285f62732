"""The recipes that come with this package, found by name."""

from pathlib import Path

from hf_maskattn.recipes.fields import suggestion

_FOLDERS = ("configs", "../configs")
"""Folder of the recipes, seen from the package: where it is installed, and in a clone."""


def shipped_recipes() -> dict[str, Path]:
    """Return the files of the recipes that come with this package, by their names without suffix."""
    package = Path(__file__).parents[1]
    files = (file for folder in _FOLDERS for file in sorted((package / folder).glob("*.yaml")))
    return {file.stem: file.resolve() for file in files}


def describe_recipe(path: Path) -> str:
    """Read what a shipped recipe is for: the first line of its comment, without `#`."""
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def explain_missing_recipe(path: Path) -> str:
    """Return the message for a recipe that does not exist, with the way out."""
    if (path / "recipe.yaml").is_file():
        return f"RECIPE must be a file, got the folder {path}. Use {path / 'recipe.yaml'}."
    name, equals, _ = str(path).partition("=")
    if equals:  # what follows may be a token
        return f"RECIPE must come before overrides (group.key=value), got `{name}=...`. Put the recipe first."
    near = suggestion(str(path), shipped_recipes())
    if near is not None:
        return f"There is no recipe {path}. Did you mean {near}?"
    return (
        f"There is no recipe {path}. Use a YAML file, such as the recipe.yaml of a run, or a name that `hf-maskattn recipes` "
        "lists. `hf-maskattn init TASK FILE` writes a recipe for your data."
    )
