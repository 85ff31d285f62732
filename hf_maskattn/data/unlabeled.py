"""Texts without labels for distillation, and the removal of texts that a model is evaluated on."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from hf_maskattn.data.loading import load_splits

logger = logging.getLogger(__name__)

T = TypeVar("T")


def load_unlabeled_texts(
    source: str | None, file: str | None, *, split: str, text_column: str, csv_separator: str | None = None
) -> list[str]:
    """Load the texts of a split of a dataset, or of a file or pattern instead. Other columns are not read. See `load_splits`.

    Raises:
        FileNotFoundError: There is no such dataset or file.
        ValueError: Neither or both of `source` and `file` are given, the dataset has no such split, or the column is missing.
        TypeError: A text is not a string.
    """
    try:
        splits = load_splits(
            source,
            train_file=file,
            csv_separator=csv_separator,
            train_split=split,
            validation_split=None,
            test_split=None,
            required_columns=[text_column],
        )
    except ValueError as error:
        given = f"data.unlabeled_file={file}" if source is None else f"data.unlabeled_source={source}"
        raise ValueError(f"{given}: {error}") from error
    texts = list(splits["train"][text_column])
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            location = splits.locations["train"][row]
            raise TypeError(f"{location}: the text must be a string, got {text!r}. Remove the row.")
    return texts


def remove_held_out(texts: Sequence[T], held_out: Iterable[str], *, kind: str, to_text: Callable[[T], str] = str) -> list[T]:
    """Remove texts that a model is evaluated on, whatever their case and white space, and report their number.

    Args:
        texts: Texts to train on, or values that `to_text` converts to texts.
        held_out: Texts of the validation and test splits.
        kind: Kind of the texts, for the message.
        to_text: Returns the text of a value.
    """
    excluded = set(map(_normalize, held_out)) if texts else set()
    kept = [text for text in texts if _normalize(to_text(text)) not in excluded]
    if texts:
        logger.info(
            f"The model is distilled on {len(kept):,} {kind} texts. {len(texts) - len(kept):,} others were removed, because "
            "they are also in the validation or test split."
        )
    return kept


def _normalize(text: str) -> str:
    return " ".join(text.casefold().split())
