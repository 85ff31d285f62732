"""The command `train`."""

import shlex
from typing import Annotated

import typer

from hf_maskattn.cli.console import INTERRUPTED, exit_on_error, is_first_process, is_one_of_several, print_message
from hf_maskattn.cli.options import Overrides


def train(
    recipe: Annotated[
        str, typer.Argument(help="YAML file with the groups model, data and training, or the name of a shipped recipe.")
    ],
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in training.output_dir.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in training.output_dir.")] = False,
) -> None:
    """Train a model. Its weights, tokenizer, metrics, recipe and card are saved to training.output_dir.

    Ctrl-C saves a checkpoint and stops; --resume continues from it. `hf-maskattn recipes` lists the shipped recipes,
    `hf-maskattn init` writes one for your own data. Every key of a recipe: docs/recipes.md.
    """
    with exit_on_error():
        from hf_maskattn.recipes.recipe import check_local_files, load_recipe

        parsed = load_recipe(recipe, overrides or ())
        if not resume:  # a complete run needs no data
            check_local_files(parsed)
        # The following imports take seconds.
        from hf_maskattn.cli.console import show_messages, show_metrics, show_next_steps, show_publication, show_seeds
        from hf_maskattn.training.callbacks import TrainingInterrupted
        from hf_maskattn.training.publication import NotPublished
        from hf_maskattn.training.train import train as run

        show_messages()
        try:
            report = run(parsed, resume=resume, overwrite=overwrite)
        except TrainingInterrupted as stopped:
            if not is_first_process():
                return  # at any other exit code a launcher would kill the first process before it prints
            command = shlex.join(["hf-maskattn", "train", recipe, *(overrides or ()), "--resume"])
            how = "launch the command again with --resume" if is_one_of_several() else command
            print_message(f"Stopped. The checkpoint is {stopped.checkpoint}. To resume: {how}")
            raise typer.Exit(INTERRUPTED) from stopped
        except NotPublished as failure:
            show_metrics(failure.report, parsed.model.task)
            raise
        if report.is_main_process:
            show_metrics(report, parsed.model.task)
            show_next_steps(report)
            if report.seeds is not None:
                show_seeds(report.seeds)
        if report.publication is not None:
            show_publication(report.publication)
