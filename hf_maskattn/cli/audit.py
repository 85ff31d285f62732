"""The command `audit`."""

from pathlib import Path
from typing import Annotated

import typer

from hf_maskattn.cli.console import exit_on_error
from hf_maskattn.cli.options import Revision


def audit(
    model: Annotated[str, typer.Argument(help="Folder of any text model of transformers, or its name on the Hub.")],
    text_file: Annotated[Path | None, typer.Option(help="UTF-8 file with a text on each line. The first 8 are used.")] = None,
    gradients: Annotated[bool, typer.Option("--gradients", help="Check gradients as well.")] = False,
    max_length: Annotated[int, typer.Option(help="Maximum number of tokens of a row.")] = 32,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report to this file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace this file.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the code that comes with the weights.")
    ] = False,
    revision: Revision = None,
) -> None:
    """Check whether padding changes the outputs of a model.

    Exit code 1 if it does, or if an output is not finite.
    """
    with exit_on_error():
        from hf_maskattn.cli.console import show_messages, show_report
        from hf_maskattn.data.files import read_lines
        from hf_maskattn.inference.predict import check_output_path
        from hf_maskattn.inspection.audit import audit as run
        from hf_maskattn.loading import download_revision

        show_messages()
        if json_file is not None:
            check_output_path(json_file, overwrite)
        texts = None
        if text_file is not None:
            texts = [line for line in read_lines(text_file) if line.strip()]
            if not texts:
                raise ValueError(f"{text_file} has no text. Write one on each line.")
        report = run(
            download_revision(model, revision),
            batch=texts,
            gradients=gradients,
            max_length=max_length,
            trust_remote_code=trust_remote_code,
        )
        show_report(report, json_file)
