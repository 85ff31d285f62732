"""The command `predict`."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hf_maskattn.cli.console import NOT_PASSED, exit_on_error, print_message, print_utf8
from hf_maskattn.cli.options import BatchSize, MaxLength, Model, Revision, Texts, TextsFile

_BAR_DELAY_SECONDS = 2.0


def predict(
    model: Model,
    text: Texts = None,
    file: TextsFile = None,
    column: Annotated[
        str | None,
        typer.Option(
            help="Column of the texts, or lists of words, of a file of rows. By default the one of the recipe, or text."
        ),
    ] = None,
    output_format: Annotated[
        Literal["jsonl", "table"] | None, typer.Option("--format", help="By default table on a terminal, else jsonl.")
    ] = None,
    top_k: Annotated[
        str | None, typer.Option(metavar="N|all", help="Print the N most probable labels, or tokens of a mask, or all labels.")
    ] = None,
    num_beams: Annotated[int | None, typer.Option(help="Generate text by beam search with this number of beams.")] = None,
    num_return_sequences: Annotated[int | None, typer.Option(help="Number of texts to generate for each text.")] = None,
    batch_size: BatchSize = 32,
    max_length: MaxLength = None,
    onnx: Annotated[Path | None, typer.Option(help="Run this file, exported from the model, by onnxruntime.")] = None,
    alignment: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Save an alignment plot (source x generated tokens) to FILE."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the plot.")] = False,
    revision: Revision = None,
) -> None:
    """Predict for texts from --text, --file or stdin, one result a line. JSON lines are UTF-8.

    The rows of a file of rows keep their columns. A text of unknown tokens only has a `warning` in its result.

    Exit code 1 if there is no prediction for a text, such as one without a mask for a fill-mask model. Its result has `error`
    instead of `predictions`; all other results are complete.
    """
    with exit_on_error():
        from hf_maskattn.cli.console import show_messages, show_predictions
        from hf_maskattn.inference.predict import predict as run
        from hf_maskattn.loading import download_revision

        check_input(text, file, column)
        show_messages()
        folder = download_revision(model, revision)
        texts, column = read_input(text, file, column, folder)
        predictions = run(
            folder,
            texts,
            column=column,
            top_k=_parse_top_k(top_k),
            num_beams=num_beams,
            num_return_sequences=num_return_sequences,
            batch_size=batch_size,
            max_length=max_length,
            onnx_file=onnx,
            alignment_file=alignment,
            overwrite=overwrite,
        )
        failures: list[str] = []
        results = _collect_errors(_with_bar(predictions, len(texts)), failures)
        if (output_format or ("table" if sys.stdout.isatty() else "jsonl")) == "table":
            show_predictions(results, column)
        else:
            for result in results:
                print_utf8(json.dumps(result, ensure_ascii=False, default=str))  # a Parquet file may have dates
        if failures:
            print_message(f"{len(failures):,} of {len(texts):,} texts have no predictions. First error: {failures[0]}")
            raise typer.Exit(NOT_PASSED)


def check_input(text: list[str] | None, file: Path | None, column: str | None) -> None:
    """Check the options that say where the texts are.

    Raises:
        ValueError: If they contradict each other, or there is no text.
    """
    from hf_maskattn.data.files import FILE_SUFFIXES, names_rows

    if text and file:
        raise ValueError("--text and --file are mutually exclusive.")
    if column is not None and not (file and names_rows(file)):
        raise ValueError(f"--column needs --file with one of the suffixes {', '.join(FILE_SUFFIXES)}.")
    if not (text or file) and sys.stdin.isatty():
        raise ValueError("No text was given. Pass --text TEXT or --file FILE, or pipe lines to stdin.")


def read_input(text: list[str] | None, file: Path | None, column: str | None, model: str | Path) -> tuple[Sequence[Any], str]:
    """Read the texts or the rows of options that `check_input` accepts, for a model; returns them and their column."""
    from hf_maskattn.data.files import names_rows, read_lines, split_lines
    from hf_maskattn.inference.input_rows import load_rows

    if file and names_rows(file):
        return load_rows(file, model, column)
    return text or (read_lines(file) if file else split_lines(sys.stdin.buffer.read(), "stdin")), "text"


def _parse_top_k(value: str | None) -> int | Literal["all"] | None:
    if value is None:
        return None
    if value == "all":
        return "all"
    if not value.isdecimal():
        raise ValueError(f"--top-k must be a number or all, got {value!r}.")
    return int(value)


def _with_bar(predictions: Iterable[dict[str, Any]], total: int) -> Iterable[dict[str, Any]]:
    """Show a progress bar on a terminal if results are written elsewhere and predicting takes time."""
    from tqdm import tqdm

    hidden = sys.stdout.isatty() or not sys.stderr.isatty()
    return tqdm(predictions, total=total, unit="text", delay=_BAR_DELAY_SECONDS, disable=hidden)


def _collect_errors(results: Iterable[dict[str, Any]], errors: list[str]) -> Iterator[dict[str, Any]]:
    for result in results:
        if "error" in result:
            errors.append(result["error"])
        yield result
