"""Rows of a dataset -> inputs of a model: texts with their labels, and texts alone."""

import logging
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from datasets import Dataset, Features, List, Value
from transformers import BatchEncoding, PreTrainedTokenizerBase

from hf_maskattn.data.labels import UnknownLabelError, item_feature, label_numbers
from hf_maskattn.data.places import Place, Places
from hf_maskattn.data.progress import bars_for_many_rows
from hf_maskattn.data.shards import Shards
from hf_maskattn.data.streaming import RowStream

logger = logging.getLogger(__name__)

_BEYOND = "tokens_beyond_"
"""Begins the name of a column with the number of tokens that a limit cut off; the name of the limit ends it."""

_INPUTS = {"input_ids": List(Value("int32")), "attention_mask": List(Value("int8"))}


def encode_texts(
    split: Dataset | Shards,
    tokenizer: PreTrainedTokenizerBase,
    *,
    text_column: str,
    label_column: str,
    labels: Sequence[str] | None,
    max_length: int,
    places: Places | None = None,
    name: str = "",
) -> Dataset | RowStream:
    """Turn texts with one label, several labels or a number each into model inputs.

    Args:
        split: Rows with a text and a label. A label is a name, the number of a `ClassLabel`, or a whole number (the label
            of that name; or, if no label is named by a whole number, a place in `labels`); a list of these is a row with
            any number of labels.
        tokenizer: What cuts the texts.
        text_column: Column of the texts.
        label_column: Column of the labels.
        labels: Names of the labels in the order of their numbers; `None` for regression.
        max_length: Largest number of tokens; the rest of a text is cut off.
        places: Where the rows stand, for error messages.
        name: Name of the split, for the warning of rows that are cut.

    Returns:
        Columns `input_ids`, `attention_mask` and `labels`: the number of the label; or, from lists, one 0.0 or 1.0
        per label; or, for regression, the number itself.

    Raises:
        TypeError: A text is no string.
        ValueError: A row has no label, one that is not in `labels`, or for regression no finite number.
    """
    feature = split.features[label_column]
    item = item_feature(feature)
    read: Callable[[Any], Any]
    if labels is None:
        read, output = _read_number, Value("float32")
    elif item is None:
        read, output = partial(_read_label, numbers=label_numbers(feature, labels), labels=list(labels)), Value("int64")
    else:
        numbers = label_numbers(item, labels)
        read, output = partial(_read_labels, numbers=numbers, labels=list(labels)), List(Value("float32"))
    encode = partial(
        _encode_texts_batch,
        tokenizer=tokenizer,
        text_column=text_column,
        label_column=label_column,
        read=read,
        max_length=max_length,
    )
    features, limits = Features({**_INPUTS, "labels": output}), {"max_length": max_length}
    return map_rows(split, encode, features=features, limits=limits, name=name, places=places)


def encode_for_masked_lm(
    split: Dataset | Shards,
    tokenizer: PreTrainedTokenizerBase,
    *,
    text_column: str,
    max_length: int,
    places: Places | None = None,
    name: str = "",
) -> Dataset | RowStream:
    """Turn texts into model inputs; a collator masks them anew in each epoch.

    Args:
        split: Rows with a text.
        tokenizer: What cuts the texts.
        text_column: Column of the texts.
        max_length: Largest number of tokens; the rest of a text is cut off.
        places: Where the rows stand, for error messages.
        name: Name of the split, for the warning of rows that are cut.

    Returns:
        Columns `input_ids` and `attention_mask`.

    Raises:
        TypeError: A text is no string.
    """
    encode = partial(_encode_batch, tokenizer=tokenizer, text_column=text_column, max_length=max_length)
    return map_rows(split, encode, features=Features(_INPUTS), limits={"max_length": max_length}, name=name, places=places)


def map_rows(
    split: Dataset | Shards,
    encode: Callable[..., dict[str, Any]],
    *,
    features: Features,
    limits: Mapping[str, int],
    name: str,
    places: Places | None = None,
) -> Dataset | RowStream:
    """Replace all columns of a split by what a function makes of its batches and the places of their rows.

    Args:
        split: The rows.
        encode: From a batch and the places of its rows to the new columns and, for each limit, a column of the numbers of
            tokens that it cut off (see `cut_column`).
        features: Types of the new columns.
        limits: Largest numbers of tokens, by their key in the group `data` of a recipe. A warning counts the rows that one cut:
            once for a split; of a stream, which is never known whole, those of the first rows of which one is cut.
        name: Name of the split, for that warning.
        places: Where the rows of a dataset stand; `None` to name them by their numbers.

    Returns:
        The new columns, in the order of the rows; of shards a stream, which makes them when they are read.
    """
    if isinstance(split, Shards):
        return RowStream(split, _StreamEncoding(encode, limits, name))
    with bars_for_many_rows(split.num_rows):
        encoded = split.map(
            partial(_encode_at_places, encode=encode, places=places or Places()),
            batched=True,
            with_indices=True,
            remove_columns=split.column_names,
            features=Features({**features, **{cut_column(key): Value("int32") for key in limits}}),
            desc="Encoding",
        )
    # The numbers are part of what datasets caches, so that rows from its cache are counted, too.
    for key, limit in limits.items():
        _warn_of_cuts(encoded[cut_column(key)], key, limit, f"rows of the split {name!r}")
    return encoded.remove_columns([cut_column(key) for key in limits])


def cut_column(limit: str) -> str:
    """Name the column with the number of tokens of each row that a limit, such as "max_length", cut off."""
    return f"{_BEYOND}{limit}"


@dataclass
class _StreamEncoding:
    """Encodes batches of a stream, and warns the first time that a limit cuts a row."""

    encode: Callable[..., dict[str, Any]]
    limits: Mapping[str, int]
    name: str
    silent: set[str] = field(default_factory=set)

    def __call__(self, batch: dict[str, list[Any]], places: list[Any]) -> dict[str, Any]:
        columns = self.encode(batch, places)
        for key, limit in self.limits.items():
            cuts = columns.pop(cut_column(key))
            if key not in self.silent and _warn_of_cuts(
                cuts, key, limit, f"rows read together of the stream {self.name!r}", " Later rows are cut without a warning."
            ):
                self.silent.add(key)
        return columns


def _warn_of_cuts(cuts: Sequence[int], key: str, limit: int, rows: str, note: str = "") -> bool:
    cut = [number for number in cuts if number]
    if cut:
        what = "targets longer" if key == "max_target_length" else "texts longer"
        logger.warning(
            f"{len(cut):,} of {len(cuts):,} {rows} have {what} than {key}={limit} tokens; {sum(cut):,} tokens were cut. Raise "
            f"data.{key} to keep them.{note}"
        )
    return bool(cut)


def _encode_at_places(
    batch: dict[str, list[Any]], rows: list[int], *, encode: Callable[..., dict[str, Any]], places: Places
) -> dict[str, Any]:
    return encode(batch, [places(row) for row in rows])


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: list[Any], rows: list[Place], *, max_length: int, **settings: bool
) -> BatchEncoding:
    """Cut texts into tokens, without padding.

    Args:
        tokenizer: What cuts the texts.
        texts: The texts.
        rows: The places of their rows, for the error message.
        max_length: Largest number of tokens; the rest of a text is cut off.
        **settings: Further settings of the tokenizer, such as `return_offsets_mapping`.

    Returns:
        `input_ids`, `attention_mask`, what the settings ask for, and the numbers of tokens that were cut off.

    Raises:
        TypeError: A text is no string.
    """
    for row, text in zip(rows, texts, strict=True):
        if not isinstance(text, str):
            raise TypeError(
                f"{row}: the text is {text!r} ({type(text).__name__}), not a string; remove the "
                "row, or turn the column into text"
            )
    encoded = tokenizer(
        texts,
        truncation=True,
        max_length=max_length,
        return_attention_mask=True,
        return_token_type_ids=False,
        **settings,
    )
    encoded[cut_column("max_length")] = count_cut_tokens(encoded)
    return encoded


def count_cut_tokens(encoded: BatchEncoding) -> list[int]:
    """Count the tokens that truncation cut off.

    Args:
        encoded: Texts that a fast tokenizer encoded.

    Returns:
        A number for each text, without tokens that the tokenizer adds.
    """
    return [
        sum(len(part) - sum(part.special_tokens_mask) for part in encoding.overflowing) for encoding in encoded.encodings or ()
    ]


def _encode_batch(
    batch: dict[str, list[Any]],
    rows: list[Place],
    *,
    tokenizer: PreTrainedTokenizerBase,
    text_column: str,
    max_length: int,
) -> dict[str, Any]:
    return dict(tokenize(tokenizer, batch[text_column], rows, max_length=max_length))


def _encode_texts_batch(
    batch: dict[str, list[Any]],
    rows: list[Place],
    *,
    tokenizer: PreTrainedTokenizerBase,
    text_column: str,
    label_column: str,
    read: Callable[[Any], Any],
    max_length: int,
) -> dict[str, Any]:
    encoded = _encode_batch(batch, rows, tokenizer=tokenizer, text_column=text_column, max_length=max_length)
    encoded["labels"] = []
    for row, value in zip(rows, batch[label_column], strict=True):
        try:
            encoded["labels"].append(read(value))
        except ValueError as error:
            raise type(error)(f"{row}, column {label_column!r}: {error}") from error
    return encoded


def _read_number(value: Any) -> float:
    try:
        # Python's own digit groups, "1_000", are no number of a file.
        number = float("" if isinstance(value, str) and "_" in value else value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{value!r} is not a number, which regression needs") from error
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a finite number, which regression needs")
    return number


def _read_label(value: Any, *, numbers: dict[Hashable, int], labels: list[str]) -> int:
    if value is None or value == "":
        raise ValueError("there is no label")
    if not isinstance(value, Hashable):
        raise ValueError(f"{value!r} is no label; a label is a text or a whole number")
    if value not in numbers:
        raise UnknownLabelError(f"the label {value!r} is none of {', '.join(labels[:20])}")
    return numbers[value]


def _read_labels(values: Any, *, numbers: dict[Hashable, int], labels: list[str]) -> list[float]:
    if values is None:
        raise ValueError("there is no list of labels")
    present = {_read_label(value, numbers=numbers, labels=labels) for value in values}
    return [float(number in present) for number in range(len(labels))]
