"""The verb `train`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from hf_maskattn.cli.errors import INTERRUPTED, is_first_process, is_one_of_several, say, told_in_one_line


def train(
    recipe: Annotated[Path, typer.Argument(help="YAML file with the groups model, data and training.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[GROUP.KEY=VALUE]...", help="Changes to the recipe.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the output folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the output folder.")] = False,
) -> None:
    """Train a model and write it with its tokenizer, scores, recipe and card to training.output_dir.

    Ctrl-C saves a checkpoint and stops; --resume goes on from there.
    """
    with told_in_one_line():
        from hf_maskattn.recipes.local_files import check_local_files
        from hf_maskattn.recipes.recipe import load_recipe

        parsed = load_recipe(recipe, overrides or ())
        if not resume:  # a finished run needs no data
            check_local_files(parsed)
        # From here on imports take seconds.
        from hf_maskattn.cli.errors import show_messages
        from hf_maskattn.cli.tables import show_metrics, show_publication
        from hf_maskattn.training.callbacks import TrainingInterrupted
        from hf_maskattn.training.publishing import NotPublished
        from hf_maskattn.training.train import train as run

        show_messages()
        try:
            report = run(parsed, resume=resume, overwrite=overwrite)
        except TrainingInterrupted as stopped:
            if not is_first_process():
                return  # a launcher would end the first process, which is about to speak, for any other end
            command = shlex.join(["hf-maskattn", "train", str(recipe), *(overrides or ()), "--resume"])
            how = "launch it again with --resume" if is_one_of_several() else command
            say(f"Stopped; everything up to here is in {stopped.checkpoint}. To go on: {how}")
            raise typer.Exit(INTERRUPTED) from stopped
        except NotPublished as failure:
            show_metrics(failure.report, parsed.model.task)
            raise
        if report.is_main_process:
            show_metrics(report, parsed.model.task)
        if report.publication is not None:
            show_publication(report.publication)
