"""Rows of a source text and a target text -> inputs of a text-to-text model, and the texts that its answers may equal."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from hf_maskattn.data.encoding import count_cut_tokens, cut_column, map_rows, tokenize
from hf_maskattn.data.places import Place, Places
from hf_maskattn.data.shards import Shards
from hf_maskattn.data.streaming import RowStream

RowIds = tuple[tuple[int, ...], tuple[int, ...]]
"""The token ids of a source, and the labels of its row."""

References = Mapping[RowIds, list[str]]
"""From the ids of a row to the texts that are right answers."""

_FEATURES = Features(
    {
        "input_ids": List(Value("int32")),
        "attention_mask": List(Value("int8")),
        "labels": List(Value("int64")),
    }
)


def encode_pairs(
    split: Dataset | Shards,
    tokenizer: PreTrainedTokenizerBase,
    *,
    source_column: str,
    target_column: str,
    max_source_length: int,
    max_target_length: int,
    places: Places | None = None,
    name: str = "",
) -> Dataset | RowStream:
    """Turn pairs of a source and a target into model inputs.

    Args:
        split: Rows with a source text, and a target text or a list of right ones, of which the first is the target.
        tokenizer: What cuts both; one that has an end token.
        source_column: Column of the sources.
        target_column: Column of the targets.
        max_source_length: Largest number of tokens of a source, with those that the tokenizer adds; the rest is cut off.
        max_target_length: Likewise of a target, with its end token.
        places: Where the rows stand, for error messages.
        name: Name of the split, for the warning of rows that are cut.

    Returns:
        Columns `input_ids`, `attention_mask` and `labels`; labels end with the end token, also where they are cut.

    Raises:
        TypeError: A source or a target is no string.
        ValueError: The tokenizer has no end token, or a row has an empty list of targets.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError(
            "the tokenizer has no end token, so that a model could not learn where to stop; train one with "
            "train_tokenizer(..., for_generation=True), or set tokenizer.eos_token to the token that ends a text"
        )
    encode = partial(
        _encode_batch,
        tokenizer=tokenizer,
        source_column=source_column,
        target_column=target_column,
        max_source_length=max_source_length,
        max_target_length=max_target_length,
    )
    limits = {"max_length": max_source_length, "max_target_length": max_target_length}
    return map_rows(split, encode, features=_FEATURES, limits=limits, name=name, places=places)


def references_of(split: Dataset, encoded: Dataset, column: str, places: Places | None = None) -> References:
    """Collect the right answers of each row, to score against the texts of the data, not against encoded ones.

    Args:
        split: The rows.
        encoded: The same rows as `encode_pairs` encoded them.
        column: Column of the right answers: a text, or a list of them.
        places: Where the rows stand, for error messages.

    Returns:
        The answers by the token ids of source and labels. Rows that are equal in both share their answers; the source alone
        does not tell rows apart: it may have been cut, or hold unknown tokens.

    Raises:
        TypeError: An answer is no string.
        ValueError: A row has an empty list of answers.
    """
    references: dict[RowIds, list[str]] = {}
    rows = zip(encoded["input_ids"], encoded["labels"], split[column], strict=True)
    for row, (source, labels, value) in enumerate(rows):
        known = references.setdefault((tuple(source), tuple(labels)), [])
        known += [text for text in right_texts((places or Places())(row), value) if text not in known]
    return references


def right_texts(row: Place, value: Any) -> list[str]:
    """List the right answers of a row.

    Args:
        row: Where the row stands, for the error.
        value: A text, or a list of them.

    Returns:
        The answers, at least one; the first is the one to write.

    Raises:
        TypeError: An answer is no string.
        ValueError: The list is empty.
    """
    texts = value if isinstance(value, list) else [value]
    if not texts:
        raise ValueError(f"{row}: the list of targets is empty; remove the row, or give it one")
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(
                f"{row}: the target is {text!r} ({type(text).__name__}), not a string; remove "
                "the row, or turn the column into text"
            )
    return texts


def _encode_batch(
    batch: dict[str, list[Any]],
    rows: list[Place],
    *,
    tokenizer: PreTrainedTokenizerBase,
    source_column: str,
    target_column: str,
    max_source_length: int,
    max_target_length: int,
) -> dict[str, Any]:
    encoded = dict(tokenize(tokenizer, batch[source_column], rows, max_length=max_source_length))
    targets = [right_texts(row, value)[0] for row, value in zip(rows, batch[target_column], strict=True)]
    written = tokenizer(text_target=targets, truncation=True, max_length=max_target_length)
    encoded["labels"] = [_ended(ids, tokenizer.eos_token_id, max_target_length) for ids in written["input_ids"]]
    cuts = zip(count_cut_tokens(written), written["input_ids"], encoded["labels"], strict=True)
    # The end token may take the place of the last token that the tokenizer left.
    encoded[cut_column("max_target_length")] = [cut + (len(ended) == len(ids) and ended != ids) for cut, ids, ended in cuts]
    return encoded


def _ended(ids: list[int], end: int, max_length: int) -> list[int]:
    """Add the end token where the tokenizer does not; some begin a text with it, and some add a language behind it."""
    return ids if end in ids[1:] or ids == [end] else [*ids[: max_length - 1], end]
