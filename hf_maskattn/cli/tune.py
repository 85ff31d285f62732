"""The command `tune`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from hf_maskattn.cli.console import INTERRUPTED, exit_on_error, print_message
from hf_maskattn.cli.options import Overrides


def tune(
    recipe: Annotated[str, typer.Argument(help="YAML file, or the name of a shipped recipe.")],
    overrides: Overrides = None,
    trials: Annotated[int | None, typer.Option(help="Number of trials, instead of tuning.trials.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the search. By default training.output_dir with -tuning.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the search in the folder.")] = False,
) -> None:
    """Search a space of recipes for the best score on the validation split, and write the best recipe.

    The group `tuning` of the recipe declares the space. Without it, learning rate, batch size and dropout are searched around
    the values of the recipe. The test split is never evaluated.
    """
    with exit_on_error():
        from hf_maskattn.recipes.recipe import check_local_files, load_recipe

        parsed = load_recipe(recipe, overrides or ())
        check_local_files(parsed)
        # The following imports take seconds.
        from hf_maskattn.cli.console import show_messages, show_trials
        from hf_maskattn.training.tuning import tune as run

        show_messages()
        try:
            report = run(parsed, trials=trials, output=output, resume=resume)
        except KeyboardInterrupt as error:
            options = [*(["--trials", str(trials)] if trials else ()), *(["--output", str(output)] if output else ())]
            command = shlex.join(["hf-maskattn", "tune", recipe, *(overrides or ()), *options, "--resume"])
            print_message(f"Stopped. To resume: {command}")
            raise typer.Exit(INTERRUPTED) from error
        show_trials(report)
