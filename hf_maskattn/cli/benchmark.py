"""The command `benchmark`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from hf_maskattn.cli.console import exit_on_error

FAILED = 1
_LOG_WIDTH = 140


def benchmark(
    part: Annotated[
        Literal["recurrence", "attention", "training", "inference", "rnnsearch"] | None,
        typer.Argument(help="What to measure. By default everything.", show_default=False),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Measure fewer sizes, fewer times.")] = False,
    device: Annotated[
        str | None,
        typer.Option(help="Device, such as cpu or cuda. By default the accelerator if there is one.", show_default=False),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file.")] = None,
) -> None:
    """Measure the speed of this package on your machine against the alternatives.

    Outputs are compared before times. Where they differ, no time is reported and the exit code is 1.
    """
    with exit_on_error():
        from rich.console import Console
        from rich.progress import Progress

        from hf_maskattn.benchmark.benchmark import benchmark as run
        from hf_maskattn.cli.console import show_messages
        from hf_maskattn.data.cldr import build_cldr_languages

        show_messages()
        # A token of the recipe language_identification is a character.
        lengths = [len(text) for text in build_cldr_languages()["train"]["text"]]
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("", visible=False)

            def show(case: str, done: int, total: int) -> None:
                progress.update(task, description=case, completed=done, total=total, visible=True)

            report = run(lengths=lengths, part=part, quick=quick, device=device, on_case=show)
        console = Console()
        if not console.is_terminal:
            console.width = max(console.width, _LOG_WIDTH)
        console.print(report)
        if json_file is not None:
            json_file.write_text(report.to_json() + "\n", encoding="utf-8")
        if not report.passed:
            raise typer.Exit(FAILED)
