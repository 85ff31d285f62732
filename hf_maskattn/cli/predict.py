"""The verb `predict`."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hf_maskattn.cli.errors import say, told_in_one_line

UNANSWERED = 1
_SECONDS_WITHOUT_A_BAR = 2.0


def predict(
    model: Annotated[str, typer.Argument(help="Folder of the model, or its name on the Hub.")],
    text: Annotated[list[str] | None, typer.Option(help="A text; give it once for each text.")] = None,
    file: Annotated[Path | None, typer.Option(help="UTF-8 file with a text on each line.")] = None,
    output_format: Annotated[
        Literal["jsonl", "table"] | None,
        typer.Option("--format", help="The default is table in a terminal, else jsonl.", show_default=False),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Most texts that go through the model together.")] = 32,
    max_length: Annotated[
        int | None, typer.Option(help="Cut texts to this number of tokens; by default nothing is cut.", show_default=False)
    ] = None,
    onnx: Annotated[
        Path | None, typer.Option(help="File that `export` wrote from the model, to be run by onnxruntime.")
    ] = None,
    alignment: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Picture to draw of which part of each text what was written for it is from."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the picture.")] = False,
) -> None:
    """Predict for texts given by --text, --file or on stdin, a result for each line; JSON lines are UTF-8.

    Exit code 1 if a text cannot be answered, such as one without a mask for a model that fills masks: its result has an
    `error` in place of `predictions`, the others are complete.
    """
    with told_in_one_line():
        from hf_maskattn.cli.errors import show_messages
        from hf_maskattn.cli.tables import show_predictions
        from hf_maskattn.data.loading import lines_of_file, lines_of_stream
        from hf_maskattn.inference.predict import predict as run

        if text and file:
            raise ValueError("--text and --file are both given, give one of them.")
        if not (text or file) and sys.stdin.isatty():
            raise ValueError("there is no text: give --text TEXT, --file FILE, or pipe lines in.")
        show_messages()
        texts = text or (lines_of_file(file) if file else lines_of_stream(sys.stdin.buffer))
        predictions = run(
            model,
            texts,
            batch_size=batch_size,
            max_length=max_length,
            onnx_file=onnx,
            alignment_file=alignment,
            overwrite=overwrite,
        )
        unanswered: list[str] = []
        results = _collect_errors(_with_bar(predictions, len(texts)), unanswered)
        if (output_format or ("table" if sys.stdout.isatty() else "jsonl")) == "table":
            show_predictions(results)
        else:
            for result in results:
                # Half of a surrogate pair, which UTF-8 does not have, becomes the escape that JSON has for it.
                line = json.dumps(result, ensure_ascii=False).encode("utf-8", "backslashreplace")
                # A stream without bytes below it, such as io.StringIO, has no encoding.
                typer.echo(line if hasattr(sys.stdout, "buffer") else line.decode())
        if unanswered:
            say(f"{len(unanswered):,} of {len(texts):,} texts have no answer. The first reason: {unanswered[0]}")
            raise typer.Exit(UNANSWERED)


def _with_bar(predictions: Iterable[dict[str, Any]], total: int) -> Iterable[dict[str, Any]]:
    """Show a progress bar on a terminal, where it takes some time and results go elsewhere."""
    from tqdm import tqdm

    hidden = sys.stdout.isatty() or not sys.stderr.isatty()
    return tqdm(predictions, total=total, unit="text", delay=_SECONDS_WITHOUT_A_BAR, disable=hidden)


def _collect_errors(results: Iterable[dict[str, Any]], errors: list[str]) -> Iterator[dict[str, Any]]:
    for result in results:
        if "error" in result:
            errors.append(result["error"])
        yield result
