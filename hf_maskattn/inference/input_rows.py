"""The rows that predictions are made for: texts, words that are already cut, or rows with further columns."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_maskattn.recipes.recipe import Recipe

RESULT_COLUMNS = ("predictions", "error", "warning")
"""Columns that predictions add to a row."""


@dataclass(frozen=True)
class InputRow:
    """A text to predict for.

    Attributes:
        text: The text. Words are joined by spaces, as in training.
        columns: What the result repeats.
        words: Start and end of each word in the text, by its index among the words of the row. None for a text.
    """

    text: str
    columns: Mapping[str, Any]
    words: Mapping[int, tuple[int, int]] | None = None

    def word_indices(self, start: int, end: int) -> list[int]:
        """Return the indices of the words that overlap a part of the text."""
        return [index for index, (first, last) in (self.words or {}).items() if first < end and start < last]


def parse_row(item: str | Sequence[str] | Mapping[str, Any], column: str, location: object) -> InputRow:
    """Read a text, a list of words, or a row that has either in a column. Errors have the location of the row.

    Raises:
        ValueError: If a row lacks the column, or has one that predictions add.
        TypeError: If the text is neither a string nor a list of strings.
    """
    if isinstance(item, str):
        return InputRow(item, {"text": item})
    if not isinstance(item, Mapping):
        text, words = _join_words(item, f"{location}: a text")
        return InputRow(text, {"text": text}, words)
    if column not in item:
        raise ValueError(f"{location}: the row must have the column {column!r}, got {', '.join(map(repr, item)) or 'none'}.")
    taken = [name for name in RESULT_COLUMNS if name in item]
    if taken:
        raise ValueError(f"{location}: a row must not have the column {taken[0]!r}, which the result adds. Rename it.")
    value = item[column]
    if isinstance(value, str):
        return InputRow(value, item)
    text, words = _join_words(value, f"{location}: the column {column!r}")
    return InputRow(text, item, words)


def load_rows(pattern: Path, model_folder: str | Path, column: str | None = None) -> tuple[list[dict[str, Any]], str]:
    """Load the rows of a CSV, JSON or Parquet file, and check their texts.

    Args:
        pattern: The file, or a pattern of files.
        model_folder: Folder of the model, or its name on the Hub.
        column: Column of the texts or lists of words. None for the one that the recipe of the model names, or "text". The
            cells of CSV files may be separated as in the files of the recipe.

    Returns:
        The rows, and the column.

    Raises:
        ValueError: If a file is invalid or empty, or a row has no text. Likewise TypeError, FileNotFoundError.
    """
    from hf_maskattn.data.files import empty_file_error, list_files, separator_hint
    from hf_maskattn.data.table_reading import RowLocations, read_header, read_rows

    files = list_files(pattern)
    recipe = _recipe_of(model_folder) if column is None or files[0].kind == "csv" else None
    candidates = _columns_of_recipe(recipe) if column is None else [column]
    if recipe is not None and recipe.data.csv_separator is not None and files[0].kind == "csv":
        separated = list_files(pattern, recipe.data.csv_separator)
        if not {*candidates}.isdisjoint(read_header(separated[0])):
            files = separated
    rows = [row for file in files for row in read_rows(file)]
    if not rows:
        raise empty_file_error(pattern)
    names = list(dict.fromkeys(chain.from_iterable(rows)))
    found = next((name for name in candidates if name in names), None)
    if found is None:
        way_out = "Set the column of the texts with --column NAME."
        if separator_hint(names) is not None:
            way_out = (
                "The cells seem to be separated by another character than a comma. Save the file with commas, or as JSON Lines."
            )
        raise ValueError(
            f"{pattern} must have a column {' or '.join(map(repr, candidates))}, got the columns {', '.join(names)}. {way_out}"
        )
    locations = RowLocations(files)
    for index, row in enumerate(rows):
        parse_row(row, found, locations[index])
    return rows, found


def _recipe_of(model_folder: str | Path) -> "Recipe | None":
    from hf_maskattn.loading import find_file
    from hf_maskattn.recipes.recipe import load_recipe

    path = find_file(model_folder, "recipe.yaml")
    return None if path is None else load_recipe(path)


def _columns_of_recipe(recipe: "Recipe | None") -> list[str]:
    """List the columns that may have the texts: those that the recipe of a model names, and "text"."""
    from hf_maskattn.tasks import TASKS

    if recipe is None:
        return ["text"]
    keys = ("source_column", "text_column", "tokens_column")
    named = [getattr(recipe.data, key) for key in keys if key in TASKS[recipe.model.task].data_keys]
    return list(dict.fromkeys([*filter(None, named), "text"]))


def _join_words(words: Iterable[Any] | Any, name: str) -> tuple[str, dict[int, tuple[int, int]]]:
    """Join words by spaces, and return the bounds of each. Words without a visible character are skipped, as in training."""
    from hf_maskattn.data.tag_reading import is_visible

    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise TypeError(f"{name} must be a string or a list of strings, got {words!r}.")
    kept = {index: word for index, word in enumerate(words) if is_visible(word)}
    ends = [-1]
    for word in kept.values():
        ends.append(ends[-1] + 1 + len(word))
    spans = ((previous + 1, end) for previous, end in pairwise(ends))
    return " ".join(kept.values()), dict(zip(kept, spans, strict=True))
