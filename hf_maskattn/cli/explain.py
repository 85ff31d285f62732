"""The command `explain`."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hf_maskattn.cli.console import build_table, exit_on_error, print_utf8
from hf_maskattn.cli.options import BatchSize, MaxLength, Model, Revision, Texts, TextsFile

if TYPE_CHECKING:
    from hf_maskattn.inspection.explanations import Explanation, View
    from hf_maskattn.inspection.faithfulness import Comparison

_BAR_DELAY_SECONDS = 2.0
_STDOUT = Path("-")


def explain(
    model: Model,
    text: Texts = None,
    file: TextsFile = None,
    column: Annotated[str | None, typer.Option(help="Column of the texts of a file of rows; see predict.")] = None,
    method: Annotated[
        Literal["contributions", "removal", "integrated_gradients", "gradient_x_input", "attention"] | None,
        typer.Option(help="By default contributions for classifiers of texts, else removal."),
    ] = None,
    unit: Annotated[Literal["token", "word"], typer.Option(help="What has a score.")] = "token",
    label: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Explain this class, not the predicted one.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Number of tokens in the tables on a terminal.")] = 5,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save a picture of the texts, colored by score, to FILE.")
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Save a page with colored texts and tables to FILE.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Save all scores to FILE as JSON lines; - is stdout.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace these files.")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Measure how faithful each method is on these texts, against a random order.")
    ] = False,
    limit: Annotated[int, typer.Option(help="Maximum number of texts that --compare samples.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of --compare.")] = 0,
    batch_size: BatchSize = 32,
    max_length: MaxLength = None,
    revision: Revision = None,
) -> None:
    """Explain the predictions for texts from --text, --file or stdin: a score for each token or word.

    A terminal shows the texts, colored by score (orange for the prediction, blue against it); a pipe gets JSON lines.
    """
    with exit_on_error():
        from tqdm import tqdm

        from hf_maskattn.cli.console import show_messages
        from hf_maskattn.cli.predict import check_input, read_input
        from hf_maskattn.inference.input_rows import parse_row
        from hf_maskattn.inference.predict import check_output_path
        from hf_maskattn.inspection.explain import Explainer, check_arguments
        from hf_maskattn.inspection.explanation_page import render_page
        from hf_maskattn.inspection.explanation_plots import draw_explanations, validate_plot_path
        from hf_maskattn.inspection.faithfulness import compare_methods
        from hf_maskattn.loading import download_revision

        if compare and not (method is label is plot is html_file is None):
            raise ValueError("--compare measures all methods. Omit --method, --class, --plot and --html.")
        for path in (plot, html_file, json_file):
            if path is not None and path != _STDOUT:
                check_output_path(path, overwrite)
        if plot is not None:
            validate_plot_path(plot)
        check_input(text, file, column)
        show_messages()
        folder = download_revision(model, revision)
        rows, column = read_input(text, file, column, folder)
        texts = [parse_row(row, column, file).text for row in rows]
        check_arguments(texts, method, unit, None, batch_size, max_length)
        is_shown = sys.stdout.isatty() and json_file != _STDOUT
        lines_file = _STDOUT if not sys.stdout.isatty() and json_file is plot is html_file is None else json_file
        if compare:
            comparison = compare_methods(folder, None, texts, unit=unit, limit=limit, max_length=max_length, seed=seed)
            if lines_file is not None:
                _write_lines([comparison.to_json()], lines_file)
            if is_shown:
                show_comparison(comparison)
            return
        explainer = Explainer(folder, None, method, label=label)
        explanations: Iterable[Explanation] = tqdm(
            explainer.explain_each(texts, unit=unit, batch_size=batch_size, max_length=max_length),
            total=len(texts),
            unit="text",
            delay=_BAR_DELAY_SECONDS,
            disable=None,  # shown on a terminal only
        )
        if is_shown or plot is not None or html_file is not None:
            explanations = [*explanations]
        if lines_file is not None:
            _write_lines((explanation.to_json() for explanation in explanations), lines_file)
        if plot is not None:
            draw_explanations([*explanations], plot)
        if html_file is not None:
            _write_lines([render_page([*explanations], title=Path(model).name if Path(model).is_dir() else model)], html_file)
        if is_shown:
            for explanation in explanations:
                show_explanation(explanation, top_k)


def _write_lines(lines: Iterable[str], path: Path) -> None:
    """Write lines in UTF-8 to stdout, or to a file that appears when it is complete."""
    if path == _STDOUT:
        for line in lines:
            print_utf8(line)
        return
    with TemporaryDirectory(dir=path.parent, prefix=".explain-") as folder:
        part = Path(folder) / path.name
        with part.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as stream:
            stream.writelines(f"{line}\n" for line in lines)
        os.replace(part, path)


def show_explanation(explanation: "Explanation", top_k: int) -> None:
    """Print a text for each predicted output, colored by score, with a table of the largest scores."""
    from hf_maskattn.inspection.explanations import to_visible

    console = Console(highlight=False)
    if not explanation.tokens:
        console.print(Text(f"{explanation.text!r} has no visible character.", "dim"))
    if explanation.all_unknown:
        console.print(Text("All tokens of this text are unknown to the tokenizer of the model.", "yellow"))
    for view in explanation.views():
        title = Text.assemble((to_visible(view.title), "bold"), f"  {_describe_view(explanation, view)}")
        console.print(title)
        console.print(_color_text(explanation, view), soft_wrap=True)
        table = Table(explanation.unit, "characters", "score", box=None, header_style="dim", padding=(0, 2, 0, 0))
        table.columns[2].justify = "right"
        order = view.scores.nan_to_num().abs().argsort(descending=True, stable=True).tolist()
        for index in order[:top_k]:
            start, end = explanation.offsets[index]
            place = f"{start} to {end}" if end > start else "special"
            table.add_row(Text(to_visible(explanation.tokens[index])), place, f"{view.scores[index]:+.3f}")
        console.print(table)


def _describe_view(explanation: "Explanation", view: "View") -> str:
    """Describe what the scores of a view explain, and how far they are from adding up to it."""
    name = "log-probability" if explanation.generated_text is not None else "logit"
    parts = [f"{name} {view.logit:.3f}", explanation.method]
    if explanation.method in ("contributions", "integrated_gradients", "gradient_x_input"):
        gap = abs(float(view.scores.sum()) + view.base - view.logit)
        parts.append(f"base {view.base:.3f}, completeness gap {gap:.1e}")
    return ", ".join(parts)


def _color_text(explanation: "Explanation", view: "View") -> Text:
    """Color the parts of a text by their scores; special tokens follow it."""
    from hf_maskattn.inspection.explanations import diverging_color, largest_score, text_color, to_visible

    colored = Text(to_visible(explanation.text))
    scale = largest_score(view.scores)
    parts = zip(explanation.tokens, explanation.offsets, view.scores.tolist(), strict=True)
    for token, (start, end), score in parts:
        background = diverging_color(score / scale)
        red, green, blue = background
        style = f"{text_color(background)} on rgb({red},{green},{blue})"
        if end > start:
            colored.stylize(style, start, end)
        else:
            colored.append(" ").append(to_visible(token), style)
    return colored


def show_comparison(comparison: "Comparison") -> None:
    """Print a row for each method, and what was measured."""
    table = build_table("method", "comprehensiveness", "sufficiency", "area over the curve")
    for name, measures in comparison.methods.items():
        table.add_row(name, *(f"{value:.3f}" for value in measures))
    console = Console(highlight=False)
    console.print(table)
    lines = [
        f"{comparison.num_predictions:,} predictions, erased by {comparison.unit}, seed {comparison.seed}. Larger is better, "
        "except for sufficiency.",
        *(f"{name} was not measured: {reason}" for name, reason in comparison.skipped.items()),
    ]
    for line in lines:
        console.print(Text(line), soft_wrap=True)
