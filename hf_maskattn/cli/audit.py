"""The verb `audit`."""

from pathlib import Path
from typing import Annotated

import typer

from hf_maskattn.cli.errors import told_in_one_line

LEAKS = 1
_WIDTH_OF_A_LOG = 140


def audit(
    model: Annotated[str, typer.Argument(help="Folder of any text model of transformers, or its name on the Hub.")],
    text_file: Annotated[
        Path | None, typer.Option(help="UTF-8 file with a text on each line, of which the first 8 are read.")
    ] = None,
    gradients: Annotated[bool, typer.Option("--gradients", help="Look at gradients, too.")] = False,
    max_length: Annotated[int, typer.Option(help="Most tokens of a row.")] = 32,
    json_file: Annotated[Path | None, typer.Option("--json", help="File to write the report to, as JSON.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that lies beside the weights.")
    ] = False,
) -> None:
    """Find out whether padding changes what a model says.

    Exit code 1 if it does, or if finite inputs give a value that is not finite.
    """
    with told_in_one_line():
        from rich.console import Console

        from hf_maskattn.cli.errors import show_messages
        from hf_maskattn.data.loading import lines_of_file
        from hf_maskattn.inspection.audit import audit as run

        show_messages()
        texts = None
        if text_file is not None:
            texts = [line for line in lines_of_file(text_file) if line.strip()]
            if not texts:
                raise ValueError(f"{text_file} has no text: write one on each line.")
        report = run(model, batch=texts, gradients=gradients, max_length=max_length, trust_remote_code=trust_remote_code)
        console = Console()
        if not console.is_terminal:
            console.width = max(console.width, _WIDTH_OF_A_LOG)
        console.print(report)
        if json_file is not None:
            json_file.write_text(report.to_json() + "\n", encoding="utf-8")
        if not report.passed:
            raise typer.Exit(LEAKS)
