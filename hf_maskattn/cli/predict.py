"""The verb `predict`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from hf_maskattn.cli.endings import told_in_one_line


def predict(
    model: Annotated[str, typer.Argument(help="Folder of the model, or its name on the Hub.")],
    text: Annotated[list[str] | None, typer.Option(help="A text; give it once for each text.")] = None,
    file: Annotated[Path | None, typer.Option(help="UTF-8 file with a text on each line.")] = None,
    output_format: Annotated[
        Literal["jsonl", "table"] | None,
        typer.Option("--format", help="The default is table in a terminal, else jsonl.", show_default=False),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Texts that go through the model together.")] = 32,
    onnx: Annotated[
        Path | None, typer.Option(help="File that `export` wrote from the model, to be run by onnxruntime.")
    ] = None,
    alignment: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Picture to draw of which part of each text what was written for it is from."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the picture.")] = False,
) -> None:
    """Predict for texts given by --text, --file or on stdin, a result for each line."""
    with told_in_one_line():
        from hf_maskattn.cli.messages import show_messages
        from hf_maskattn.cli.prediction_table import show_predictions
        from hf_maskattn.training.predict import predict as run
        from hf_maskattn.training.text_lines import lines_of_file, lines_of_stream

        if text and file:
            raise ValueError("--text and --file are both given, give one of them.")
        if not (text or file) and sys.stdin.isatty():
            raise ValueError("there is no text: give --text TEXT, --file FILE, or pipe lines in.")
        show_messages()
        texts = text or (lines_of_file(file) if file else lines_of_stream(sys.stdin.buffer))
        predictions = run(model, texts, batch_size=batch_size, onnx_file=onnx, alignment_file=alignment, overwrite=overwrite)
        if (output_format or ("table" if sys.stdout.isatty() else "jsonl")) == "table":
            show_predictions(predictions)
        else:
            for prediction in predictions:
                typer.echo(json.dumps(prediction, ensure_ascii=False))
