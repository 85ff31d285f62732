"""The verb `evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from hf_maskattn.cli.errors import told_in_one_line


def evaluate(
    model: Annotated[str, typer.Argument(help="Folder of the model, or its name on the Hub.")],
    recipe: Annotated[Path, typer.Argument(help="YAML file that tells the data; that of the run, or another.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[GROUP.KEY=VALUE]...", help="Changes to the recipe.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
) -> None:
    """Score a model on a split."""
    with told_in_one_line():
        from hf_maskattn.recipes.local_files import check_local_files
        from hf_maskattn.recipes.recipe import load_recipe

        parsed = load_recipe(recipe, overrides or ())
        if split in ("train", "validation", "test"):
            check_local_files(parsed, [split])
        # From here on imports take seconds.
        from hf_maskattn.cli.errors import show_messages
        from hf_maskattn.cli.tables import show_metrics
        from hf_maskattn.inference.evaluate import evaluate as run

        show_messages()
        report = run(model, parsed, split)
        if report.is_main_process:
            show_metrics(report, parsed.model.task)
