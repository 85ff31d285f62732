"""Predicted texts next to the texts that they may equal, in the one form in which all metrics of texts compare them."""

import unicodedata
from collections.abc import Sequence

import datasets

TEXT_FEATURES = datasets.Features(
    {"predictions": datasets.Value("string"), "references": datasets.List(datasets.Value("string"))}
)
"""What `evaluate` is told: one text, and a list of right ones."""


def comparable_texts(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Bring texts into Unicode NFC and drop white space at their ends; upper and lower case stay apart.

    Args:
        predictions: A text for each row; it may be empty.
        references: The right texts of each row, at least one; they may be empty texts.

    Returns:
        The predictions and the references.

    Raises:
        ValueError: There are no rows, or a row has no reference.
    """
    if not references:
        raise ValueError("There are no rows in this evaluation, there is nothing to score.")
    for row, texts in enumerate(references):
        if not texts:
            raise ValueError(f"row {row} (counted from 0) has no reference: give it at least one right text.")
    return [_comparable(text) for text in predictions], [[_comparable(text) for text in texts] for texts in references]


def _comparable(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()
