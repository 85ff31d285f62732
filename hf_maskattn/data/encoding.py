"""Encodes rows as model inputs: texts, with or without labels."""

import logging
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from datasets import Dataset, Features, List, Value
from transformers import BatchEncoding, PreTrainedTokenizerBase

from hf_maskattn.data.columns import MAX_LABELS_IN_ERROR, UnknownLabelError, build_label_ids, item_feature
from hf_maskattn.data.file_loading import progress_bars
from hf_maskattn.data.table_reading import RowLocation, RowLocations

if TYPE_CHECKING:
    from hf_maskattn.data.streaming import RowStream, Shards

logger = logging.getLogger(__name__)

BatchEncoder = Callable[[dict[str, list[Any]], list[RowLocation]], dict[str, Any]]
"""Function from the columns of a batch and the locations of its rows to columns of model inputs."""

_MIN_ROWS_FOR_PROGRESS = 50_000
_TOKEN_FEATURES = {"input_ids": List(Value("int32")), "attention_mask": List(Value("int8"))}

LABELED_TOKENS = Features({**_TOKEN_FEATURES, "labels": List(Value("int64"))})
"""Features of rows with a label for each token, or with a target."""


def encode_texts(
    split: "Dataset | Shards",
    tokenizer: PreTrainedTokenizerBase,
    *,
    text_column: str,
    label_column: str,
    labels: Sequence[str] | None,
    further_labels: Sequence[str] = (),
    max_length: int,
    locations: RowLocations | None = None,
    name: str = "",
) -> "Dataset | RowStream":
    """Encode texts with one label, several labels or a number each.

    Args:
        split: Rows with a text and a label. A label is a name, a value of a `ClassLabel`, or an integer (the label of that
            name; or, if no label name is an integer, a label id). A list of these is a row with any number of labels.
        tokenizer: Tokenizer of the model.
        text_column: Column of the texts.
        label_column: Column of the labels.
        labels: Label names in the order of their ids; `None` for regression.
        further_labels: Names of labels that the model does not have, whose ids follow, for rows that are evaluated.
        max_length: Maximum number of tokens; longer texts are truncated.
        locations: Locations of the rows, for error messages.
        name: Name of the split, for the warning about truncated rows.

    Returns:
        Columns `input_ids`, `attention_mask` and `labels`: the label id; or, for lists, 0.0 or 1.0 for each label; or, for
        regression, the number.

    Raises:
        TypeError: A text is not a string.
        ValueError: A label is missing or unknown, or is not a finite number for regression.
    """
    feature = split.features[label_column]
    item = item_feature(feature)
    encode_label: Callable[[Any], Any]
    if labels is None:
        encode_label, label_feature = _encode_number, Value("float32")
    elif item is None:
        label_ids = build_label_ids(feature, labels, further_labels)
        encode_label, label_feature = partial(_encode_label, label_ids=label_ids, labels=list(labels)), Value("int64")
    else:
        label_ids = build_label_ids(item, labels, further_labels)
        encode_label = partial(_encode_labels, label_ids=label_ids, labels=[*labels, *further_labels])
        label_feature = List(Value("float32"))
    encode = _LabelEncoder(_TextEncoder(tokenizer, text_column, max_length), "labels", label_column, encode_label)
    features = Features({**_TOKEN_FEATURES, "labels": label_feature})
    return map_rows(split, encode, features=features, limits={"max_length": max_length}, name=name, locations=locations)


def add_sequence_labels(
    encode: BatchEncoder, split: "Dataset | Shards", column: str, labels: Sequence[str], further: Sequence[str] = ()
) -> BatchEncoder:
    """Add the column `sequence_labels` to the outputs of a function: the label id of each row.

    The column of the labels, their names and further names are as in `encode_texts`.
    """
    label_ids = build_label_ids(split.features[column], labels, further)
    encode_label = partial(_encode_label, label_ids=label_ids, labels=list(labels))
    return _LabelEncoder(encode, "sequence_labels", column, encode_label)


def encode_for_masked_lm(
    split: "Dataset | Shards",
    tokenizer: PreTrainedTokenizerBase,
    *,
    text_column: str,
    max_length: int,
    locations: RowLocations | None = None,
    name: str = "",
) -> "Dataset | RowStream":
    """Encode texts for masked language modeling; a collator masks them. See `encode_texts` for the arguments.

    Returns:
        Columns `input_ids` and `attention_mask`.

    Raises:
        TypeError: A text is not a string.
    """
    encode, features = _TextEncoder(tokenizer, text_column, max_length), Features(_TOKEN_FEATURES)
    return map_rows(split, encode, features=features, limits={"max_length": max_length}, name=name, locations=locations)


def map_rows(
    split: "Dataset | Shards",
    encode: BatchEncoder,
    *,
    features: Features,
    limits: Mapping[str, int],
    name: str,
    locations: RowLocations | None = None,
) -> "Dataset | RowStream":
    """Replace all columns of a split by the outputs of a batched function.

    Args:
        split: The rows.
        encode: Function of a batch and the locations of its rows. Returns the new columns and, for each limit, a column with
            the number of truncated tokens (see `truncation_column`).
        features: Features of the new columns.
        limits: Maximum numbers of tokens, by their key in the `data` group of a recipe. Truncated rows are reported by a
            warning: once per split (see `record_truncation`), and for a stream in the first batch with a truncated row.
        name: Name of the split, for that warning.
        locations: Locations of the rows of a dataset. `None` to identify them by index.

    Returns:
        The new columns, in the order of the rows; for shards a stream, which encodes them as they are read.
    """
    if not isinstance(split, Dataset):
        from hf_maskattn.data.streaming import RowStream

        return RowStream(split, _StreamEncoder(encode, limits, name))
    with progress_bars(split.num_rows >= _MIN_ROWS_FOR_PROGRESS):
        encoded = split.map(
            partial(_encode_indexed_batch, encode=encode, locations=locations or RowLocations()),
            batched=True,
            with_indices=True,
            remove_columns=split.column_names,
            features=Features({**features, **{truncation_column(key): Value("int32") for key in limits}}),
            desc="Encoding",
        )
    # The counts are cached by datasets together with the rows, so that cached rows are reported as well.
    for key, limit in limits.items():
        found = Truncation.count(encoded[truncation_column(key)], key, limit, name)
        if found.rows and _recorded:
            _recorded[-1].append(found)
        elif found.rows:
            logger.warning(str(found))
    return encoded.remove_columns([truncation_column(key) for key in limits])


def truncation_column(limit: str) -> str:
    """Return the name of the column with the number of tokens truncated by a limit, such as "max_length"."""
    return f"tokens_beyond_{limit}"


@dataclass
class _StreamEncoder:
    """Encodes batches of a stream, and warns about the first truncated rows."""

    encode: BatchEncoder
    limits: Mapping[str, int]
    name: str
    reported: set[str] = field(default_factory=set)

    def __call__(self, batch: dict[str, list[Any]], locations: list[RowLocation]) -> dict[str, Any]:
        columns = self.encode(batch, locations)
        for key, limit in self.limits.items():
            found = Truncation.count(columns.pop(truncation_column(key)), key, limit, self.name)
            if key not in self.reported and found.rows:
                logger.warning(
                    f"{found.describe(f'rows in a batch of the stream {self.name!r}')} Later rows are truncated silently."
                )
                self.reported.add(key)
        return columns


@dataclass(frozen=True)
class Truncation:
    """The rows of a split that a limit truncates.

    Attributes:
        split: Name of the split.
        key: Key of the limit in the group `data` of a recipe.
        limit: Maximum number of tokens.
        num_rows: Number of rows of the split.
        rows: Number of truncated rows.
        tokens: Number of truncated tokens.
    """

    split: str
    key: str
    limit: int
    num_rows: int
    rows: int
    tokens: int

    @classmethod
    def count(cls, tokens_beyond: Sequence[int], key: str, limit: int, split: str) -> "Truncation":
        """Count rows, given the number of truncated tokens of each."""
        counts = [count for count in tokens_beyond if count]
        return cls(split, key, limit, num_rows=len(tokens_beyond), rows=len(counts), tokens=sum(counts))

    def describe(self, rows: str) -> str:
        """Return a warning about some kind of rows."""
        texts = "targets" if self.key == "max_target_length" else "texts"
        return (
            f"{self.rows:,} of {self.num_rows:,} {rows} have {texts} longer than {self.key}={self.limit} tokens; "
            f"{self.tokens:,} tokens were truncated. Raise data.{self.key} to keep them."
        )

    def __str__(self) -> str:
        """Return a warning about the rows of the split."""
        return self.describe(f"rows of the split {self.split!r}")


_recorded: list[list[Truncation]] = []


@contextmanager
def record_truncation() -> Iterator[list[Truncation]]:
    """Collect what is known about truncated rows of datasets, instead of logging warnings, as `warnings.catch_warnings` does.

    Yields:
        A list that gets an item for each split and limit that truncates rows.
    """
    _recorded.append([])
    try:
        yield _recorded[-1]
    finally:
        _recorded.pop()


def _encode_indexed_batch(
    batch: dict[str, list[Any]], rows: list[int], *, encode: BatchEncoder, locations: RowLocations
) -> dict[str, Any]:
    return encode(batch, [locations[row] for row in rows])


def check_text(text: Any, location: RowLocation, kind: str = "text") -> None:
    """Reject a text of a row that is not a string; `kind` is its name in the error.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(text, str):
        raise TypeError(
            f"{location}: the {kind} must be a string, got {text!r} ({type(text).__name__}). Remove the row, or convert the "
            "column to strings."
        )


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    texts: list[Any],
    locations: list[RowLocation],
    *,
    max_length: int,
    **settings: bool,
) -> BatchEncoding:
    """Tokenize the texts of rows, without padding. `settings` are further arguments, such as `return_offsets_mapping`.

    Returns:
        `input_ids`, `attention_mask`, the outputs requested by `settings`, and the numbers of truncated tokens.

    Raises:
        TypeError: A text is not a string.
    """
    for location, text in zip(locations, texts, strict=True):
        check_text(text, location)
    encoded = tokenizer(
        texts,
        truncation=True,
        max_length=max_length,
        return_attention_mask=True,
        return_token_type_ids=False,
        **settings,
    )
    encoded[truncation_column("max_length")] = count_truncated_tokens(encoded)
    return encoded


def count_truncated_tokens(encoded: BatchEncoding) -> list[int]:
    """Count the tokens of each text that truncation by a fast tokenizer removed, without special tokens."""
    return [
        sum(len(part) - sum(part.special_tokens_mask) for part in encoding.overflowing) for encoding in encoded.encodings or ()
    ]


@dataclass(frozen=True)
class _TextEncoder:
    """Encodes the texts of batches."""

    tokenizer: PreTrainedTokenizerBase
    text_column: str
    max_length: int

    def __call__(self, batch: dict[str, list[Any]], locations: list[RowLocation]) -> dict[str, Any]:
        return dict(tokenize(self.tokenizer, batch[self.text_column], locations, max_length=self.max_length))


@dataclass(frozen=True)
class _LabelEncoder:
    """Encodes batches by another function, with the labels of a column in the further column `name`."""

    encode: BatchEncoder
    name: str
    column: str
    encode_label: Callable[[Any], Any]

    def __call__(self, batch: dict[str, list[Any]], locations: list[RowLocation]) -> dict[str, Any]:
        encoded, labels = self.encode(batch, locations), []
        for location, value in zip(locations, batch[self.column], strict=True):
            try:
                labels.append(self.encode_label(value))
            except ValueError as error:
                raise type(error)(f"{location}, column {self.column!r}: {error}") from error
        return {**encoded, self.name: labels}


def _encode_number(value: Any) -> float:
    try:
        # float() accepts digit groups of Python source code, such as "1_000".
        number = float("" if isinstance(value, str) and "_" in value else value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the label must be a number for regression, got {value!r}.") from error
    if not math.isfinite(number):
        raise ValueError(f"the label must be a finite number for regression, got {value!r}.")
    return number


def _encode_label(value: Any, *, label_ids: dict[Hashable, int], labels: list[str]) -> int:
    if value is None or value == "":
        raise ValueError("the label is missing. Add it, or remove the row.")
    if not isinstance(value, Hashable):
        raise ValueError(f"the label must be a string or an integer, got {value!r}.")
    if value not in label_ids:
        raise UnknownLabelError(f"the label must be one of {', '.join(labels[:MAX_LABELS_IN_ERROR])}, got {value!r}.")
    return label_ids[value]


def _encode_labels(values: Any, *, label_ids: dict[Hashable, int], labels: list[str]) -> list[float]:
    if values is None:
        raise ValueError("the list of labels is missing. Add it, or remove the row.")
    present = {_encode_label(value, label_ids=label_ids, labels=labels) for value in values}
    return [float(index in present) for index in range(len(labels))]
