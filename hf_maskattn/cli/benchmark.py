"""The command `benchmark`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from hf_maskattn.cli.console import exit_on_error


def benchmark(
    part: Annotated[
        Literal["recurrence", "attention", "training", "inference", "rnnsearch"] | None,
        typer.Argument(help="What to measure. By default everything."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Measure fewer sizes, fewer times.")] = False,
    device: Annotated[
        str | None, typer.Option(help="Device, such as cpu or cuda. By default the accelerator if there is one.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace this file.")] = False,
) -> None:
    """Measure the speed of this package on your machine against the alternatives.

    Outputs are compared before times. Where they differ, no time is reported and the exit code is 1.
    """
    with exit_on_error():
        from rich.console import Console
        from rich.progress import Progress

        from hf_maskattn.benchmark.benchmark import benchmark as run
        from hf_maskattn.cli.console import show_messages, show_report
        from hf_maskattn.data.cldr import build_cldr_languages
        from hf_maskattn.inference.predict import check_output_path

        show_messages()
        if json_file is not None:
            check_output_path(json_file, overwrite)
        # A token of the recipe language_identification is a character.
        lengths = [len(text) for text in build_cldr_languages()["train"]["text"]]
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("", visible=False)

            def show(case: str, done: int, total: int) -> None:
                progress.update(task, description=case, completed=done, total=total, visible=True)

            report = run(lengths=lengths, part=part, quick=quick, device=device, on_case=show)
        show_report(report, json_file)
