"""The verb `benchmark`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from hf_maskattn.cli.errors import told_in_one_line

UNEQUAL = 1
_WIDTH_OF_A_LOG = 140


def benchmark(
    part: Annotated[
        Literal["recurrence", "attention", "training", "inference", "rnnsearch"] | None,
        typer.Argument(help="What to measure; without it, everything.", show_default=False),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer sizes and fewer runs.")] = False,
    device: Annotated[
        str | None,
        typer.Option(help="Such as cpu or cuda. The default is the accelerator if there is one.", show_default=False),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="File to write all numbers to, as JSON.")] = None,
) -> None:
    """Measure how fast this package is on your machine, against what else you could use.

    Results are compared before times are: whoever computes something else gets no time, and exit code 1.
    """
    with told_in_one_line():
        from rich.console import Console
        from rich.progress import Progress

        from hf_maskattn.benchmark.benchmark import benchmark as run
        from hf_maskattn.cli.errors import show_messages
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
            console.width = max(console.width, _WIDTH_OF_A_LOG)
        console.print(report)
        if json_file is not None:
            json_file.write_text(report.to_json() + "\n", encoding="utf-8")
        if not report.passed:
            raise typer.Exit(UNEQUAL)
