"""The command `export`."""

from pathlib import Path
from typing import Annotated

import typer

from hf_maskattn.cli.console import exit_on_error
from hf_maskattn.cli.options import Model


def export(
    model: Model,
    onnx: Annotated[Path, typer.Option(metavar="FILE", help="ONNX file to write.")],
    contributions: Annotated[
        bool,
        typer.Option("--contributions", help="Add the contributions of the tokens to the logits of a text classifier."),
    ] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Quantize the weights to 8-bit integers. Needs --text-file.")] = False,
    text_file: Annotated[
        Path | None,
        typer.Option(help="UTF-8 file with a text on each line, to compare predictions with and without --int8."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Export a text or token classifier to one ONNX file for any batch size, length and mask, and compare it with the model.

    The inputs are input_ids and attention_mask, the outputs are logits and attentions, and contributions if requested.
    """
    with exit_on_error():
        if int8 and text_file is None:
            raise ValueError("--int8 needs --text-file FILE with texts to compare predictions on, because it changes them.")
        if text_file is not None and not int8:
            raise ValueError("--text-file is used with --int8 only. Remove it.")
        from hf_maskattn.cli.console import show_export, show_messages
        from hf_maskattn.data.files import read_lines
        from hf_maskattn.inference.export import export_onnx

        show_messages()
        texts = None if text_file is None else read_lines(text_file)
        report = export_onnx(model, onnx, contributions=contributions, int8_texts=texts, overwrite=overwrite)
        show_export(report, model)
