"""The command `evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from hf_maskattn.cli.console import exit_on_error
from hf_maskattn.cli.options import Model, Overrides, Revision


def evaluate(
    model: Model,
    recipe: Annotated[
        str | None,
        typer.Argument(help="YAML file, or the name of a shipped recipe, for its data. By default the recipe of the model."),
    ] = None,
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    json_file: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Write metrics and scores by class to FILE, or to stdout for -."),
    ] = None,
    errors: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the rows with errors to FILE as JSON lines, the most confident errors first."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace these files.")] = False,
    revision: Revision = None,
) -> None:
    """Evaluate a model on a split: its metrics, and the scores of each class."""
    with exit_on_error():
        from hf_maskattn.recipes.recipe import check_local_files, load_recipe

        if str(errors) == "-":
            raise ValueError("--errors must be a file, got '-'.")
        changes = list(overrides or ())
        if recipe is not None and "=" in recipe and not Path(recipe).is_file():
            changes, recipe = [recipe, *changes], None
        if revision is not None:
            from hf_maskattn.loading import download_revision

            model = str(download_revision(model, revision))
        if recipe is None and (Path(model) / "recipe.yaml").is_file():
            recipe = str(Path(model) / "recipe.yaml")
        elif recipe is None:
            from hf_maskattn.loading import find_recipe

            recipe = str(find_recipe(model))
        parsed = load_recipe(recipe, changes)
        if split in ("train", "validation", "test"):
            check_local_files(parsed, [split])
        # The following imports take seconds.
        from hf_maskattn.cli.console import show_class_scores, show_messages, show_metrics
        from hf_maskattn.inference.evaluate import evaluate as run

        show_messages()
        path = None if json_file in (None, "-") else Path(str(json_file))
        report = run(model, parsed, split, json_file=path, errors_file=errors, overwrite=overwrite)
        if not report.is_main_process:
            return
        if json_file == "-":
            typer.echo(report.to_json(split))
            return
        show_metrics(report, parsed.model.task)
        if report.analysis is not None:
            show_class_scores(report.analysis.scores)
