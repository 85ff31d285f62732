"""Encodes pairs of source and target texts for text-to-text models, and collects the references of rows."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hf_maskattn.data.encoding import LABELED_TOKENS, check_text, count_truncated_tokens, map_rows, tokenize, truncation_column
from hf_maskattn.data.table_reading import RowLocation, RowLocations

if TYPE_CHECKING:
    from hf_maskattn.data.streaming import RowStream, Shards

RowIds = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids of a source, and labels of its row."""

References = Mapping[RowIds, list[str]]
"""Reference texts by the ids of a row."""


def encode_pairs(
    split: "Dataset | Shards",
    tokenizer: PreTrainedTokenizerBase,
    *,
    source_column: str,
    target_column: str,
    max_source_length: int,
    max_target_length: int,
    locations: RowLocations | None = None,
    name: str = "",
) -> "Dataset | RowStream":
    """Encode pairs of a source and a target.

    Args:
        split: Rows with a source text, and a target text or a list of references, whose first one is the target.
        tokenizer: Tokenizer of both; it needs an end-of-sequence token.
        source_column: Column of the sources.
        target_column: Column of the targets.
        max_source_length: Maximum number of tokens of a source, special tokens included; longer sources are truncated.
        max_target_length: Maximum number of tokens of a target, the end-of-sequence token included.
        locations: Locations of the rows, for error messages.
        name: Name of the split, for the warning about truncated rows.

    Returns:
        Columns `input_ids`, `attention_mask` and `labels`. Labels always end with the end-of-sequence token.

    Raises:
        TypeError: A source or a target is not a string.
        ValueError: The tokenizer has no end-of-sequence token, or a row has an empty list of targets.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError(
            "tokenizer must have an end-of-sequence token, from which a model learns to stop. Train one with "
            "train_tokenizer(..., for_generation=True), or set tokenizer.eos_token."
        )
    encode = _PairEncoder(tokenizer, source_column, target_column, max_source_length, max_target_length)
    limits = {"max_length": max_source_length, "max_target_length": max_target_length}
    return map_rows(split, encode, features=LABELED_TOKENS, limits=limits, name=name, locations=locations)


def collect_references(split: Dataset, encoded: Dataset, column: str, locations: RowLocations | None = None) -> References:
    """Collect the reference texts of each row, because encoded targets may be truncated or have unknown tokens.

    Args:
        split: The rows.
        encoded: The same rows, encoded by `encode_pairs`.
        column: Column of the references: a text, or a list of texts.
        locations: Locations of the rows, for error messages.

    Returns:
        References by the token ids of source and labels. Rows with the same ids have the same references. The source alone
        does not identify a row: it may be truncated, or have unknown tokens.

    Raises:
        TypeError: A reference is not a string.
        ValueError: A row has an empty list of references.
    """
    locations = locations or RowLocations()
    references: dict[RowIds, list[str]] = {}
    rows = zip(encoded["input_ids"], encoded["labels"], split[column], strict=True)
    for row, (source, labels, value) in enumerate(rows):
        texts = references.setdefault((tuple(source), tuple(labels)), [])
        texts += [text for text in reference_texts(locations[row], value) if text not in texts]
    return references


def references_of(*args: Any, **kwargs: Any) -> References:
    """Deprecated name of `collect_references`."""
    warnings.warn("references_of is deprecated. Use collect_references.", FutureWarning, stacklevel=2)
    return collect_references(*args, **kwargs)


def reference_texts(location: RowLocation, value: Any) -> list[str]:
    """Return the references of a row, a text or a list of texts, as a list. The first one is the target.

    Raises:
        TypeError: A reference is not a string.
        ValueError: The list is empty.
    """
    texts = value if isinstance(value, list) else [value]
    if not texts:
        raise ValueError(f"{location}: the list of targets must not be empty. Add a target, or remove the row.")
    for text in texts:
        check_text(text, location, kind="target")
    return texts


@dataclass(frozen=True)
class _PairEncoder:
    """Encodes batches of pairs. Its fields are the arguments of `encode_pairs`."""

    tokenizer: PreTrainedTokenizerBase
    source_column: str
    target_column: str
    max_source_length: int
    max_target_length: int

    def __call__(self, batch: dict[str, list[Any]], locations: list[RowLocation]) -> dict[str, Any]:
        encoded = dict(tokenize(self.tokenizer, batch[self.source_column], locations, max_length=self.max_source_length))
        values = zip(locations, batch[self.target_column], strict=True)
        targets = [reference_texts(location, value)[0] for location, value in values]
        encoded_targets = self.tokenizer(text_target=targets, truncation=True, max_length=self.max_target_length)
        labels, num_truncated = [], []
        for ids, count in zip(encoded_targets["input_ids"], count_truncated_tokens(encoded_targets), strict=True):
            labels.append(_append_end(ids, self.tokenizer.eos_token_id, self.max_target_length))
            # The end-of-sequence token may replace the last token that the tokenizer kept.
            is_replaced = labels[-1] != ids and len(labels[-1]) == len(ids)
            num_truncated.append(count + is_replaced)
        encoded["labels"] = labels
        encoded[truncation_column("max_target_length")] = num_truncated
        return encoded


def _append_end(ids: list[int], end_id: int, max_length: int) -> list[int]:
    """Append the end-of-sequence token if the tokenizer did not; some tokenizers add it first, or a language code after it."""
    return ids if end_id in ids[1:] or ids == [end_id] else [*ids[: max_length - 1], end_id]
