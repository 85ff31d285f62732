"""Shows predictions as a table."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def show_predictions(predictions: Iterable[dict[str, Any]]) -> None:
    """Print a row for each text."""
    table = Table("text", "predictions")
    for prediction in predictions:
        if "error" in prediction:
            found = f"error: {prediction['error']}"
        else:
            found = "\n".join(_describe(item) for item in prediction["predictions"])
        table.add_row(Text(prediction["text"]), Text(found))
    Console().print(table)


def _describe(item: dict[str, Any]) -> str:
    """Show a text, or a label, a tagged span or a filled-in token with its score, whichever was predicted."""
    if "generated_text" in item:
        return item["generated_text"]
    label = item.get("label") or item.get("entity_group") or item.get("entity")
    parts = [part for part in (item.get("token_str") or item.get("word"), label) if part]
    return f"{' '.join(parts)} {item['score']:.3f}"
