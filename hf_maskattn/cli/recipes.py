"""The commands `recipes` and `init`."""

import glob
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from hf_maskattn.cli.console import exit_on_error


def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe.")] = None,
) -> None:
    """List the recipes that come with this package, or print one: `hf-maskattn recipes sst2 > my_recipe.yaml`."""
    with exit_on_error():
        from hf_maskattn.recipes.shipped_recipes import describe_recipe, shipped_recipes

        files = shipped_recipes()
        if name is None:
            from rich.console import Console
            from rich.table import Table

            table = Table("name", "trains")
            for recipe, path in files.items():
                table.add_row(recipe, describe_recipe(path))
            Console().print(table)
            return
        if name not in files:
            raise ValueError(f"NAME must be one of {', '.join(files)}, got {name}.")
        typer.echo(files[name].read_text(encoding="utf-8"), nl=False)


def init(
    task: Annotated[
        Literal["text-classification", "token-classification", "joint-classification", "fill-mask", "seq2seq"],
        typer.Argument(help="What the model is to do."),
    ],
    file: Annotated[str, typer.Argument(help="CSV, TSV, JSON Lines or Parquet file with the training data.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[GROUP.KEY=VALUE]...", help="Keys to set, such as data.text_column=review."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Recipe to write. By default the name of FILE with .yaml.")] = None,
) -> None:
    """Write a commented recipe for your own data, with the columns of the file filled in."""
    with exit_on_error():
        if output is None and glob.has_magic(file):
            raise ValueError(f"--output must name the recipe to write for several files, got {file!r}.")
        target = output or Path(f"{Path(file).name.split('.')[0]}.yaml")
        from hf_maskattn.cli.console import show_messages
        from hf_maskattn.recipes.starter_recipe import write_starter_recipe

        show_messages()
        write_starter_recipe(task, file, target, overrides or ())
        typer.echo(f"Wrote {target}. Train with: hf-maskattn train {shlex.quote(str(target))}")
