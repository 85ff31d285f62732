"""The verb `export`."""

from pathlib import Path
from typing import Annotated

import typer

from hf_maskattn.cli.errors import told_in_one_line


def export(
    model: Annotated[str, typer.Argument(help="Folder of the model, or its name on the Hub.")],
    onnx: Annotated[Path, typer.Option(metavar="FILE", help="The ONNX file to write.")],
    int8: Annotated[bool, typer.Option("--int8", help="Round weights to 8-bit integers; needs --text-file.")] = False,
    text_file: Annotated[
        Path | None,
        typer.Option(help="UTF-8 file with a text on each line, on which to compare predictions with and without --int8."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Write a classifier of texts or tokens to one ONNX file, for any batch, length and mask, and compare it with the model.

    The inputs are input_ids and attention_mask, the outputs logits and attentions.
    """
    with told_in_one_line():
        if int8 and text_file is None:
            raise ValueError("--int8 changes predictions: give --text-file FILE with texts to compare them on.")
        if text_file is not None and not int8:
            raise ValueError("--text-file is read for --int8 alone.")
        from hf_maskattn.cli.errors import show_messages
        from hf_maskattn.cli.tables import show_export
        from hf_maskattn.data.loading import lines_of_file
        from hf_maskattn.inference.export import export as run

        show_messages()
        texts = None if text_file is None else lines_of_file(text_file)
        show_export(run(model, onnx, int8_texts=texts, overwrite=overwrite), model)
