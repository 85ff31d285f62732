"""Rows of words with a tag each -> inputs of a model that sees raw text, as a pipeline does."""

from bisect import bisect_right
from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any

from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from hf_maskattn.data.encoding import map_rows, tokenize
from hf_maskattn.data.labels import UnknownLabelError, item_feature, label_numbers
from hf_maskattn.data.places import Place, Places
from hf_maskattn.data.row_stream import RowStream
from hf_maskattn.data.shards import Shards
from hf_maskattn.model.losses import IGNORED

_FEATURES = Features(
    {
        "input_ids": List(Value("int32")),
        "attention_mask": List(Value("int8")),
        "labels": List(Value("int64")),
    }
)


def encode_tags(
    split: Dataset | Shards,
    tokenizer: PreTrainedTokenizerBase,
    *,
    text_column: str | None = None,
    tokens_column: str,
    label_column: str,
    labels: Sequence[str],
    max_length: int,
    places: Places | None = None,
) -> Dataset | RowStream:
    """Turn words with a tag each into model inputs with a label per token.

    The raw text is cut, not the words, so that training sees what a pipeline sees; a token gets the tag of the word
    that its characters lie in (see `align_tags`).

    Args:
        split: Rows with words and tags.
        tokenizer: What cuts the texts; a fast one.
        text_column: Column of the raw text; `None` to join the words by spaces.
        tokens_column: Column of the lists of words, in the order of the text.
        label_column: Column of the lists of tags: names, numbers of a `ClassLabel`, or places in `labels`.
        labels: Names of the tags in the order of their numbers, such as `["O", "B-DAY", "I-DAY"]`.
        max_length: Largest number of tokens; the rest of a text is cut off.
        places: Where the rows stand, for error messages.

    Returns:
        Columns `input_ids`, `attention_mask` and `labels` (-100 at the special tokens that the tokenizer adds).

    Raises:
        TypeError: A text is no string.
        ValueError: A row has more words than tags or fewer, an unknown tag, or a word that its text does not have.
    """
    item = item_feature(split.features[label_column])
    if item is None:
        raise ValueError(f"the column {label_column!r} holds {split.features[label_column]}; a list of tags per row is needed")
    encode = partial(
        _encode_batch,
        tokenizer=tokenizer,
        text_column=text_column,
        tokens_column=tokens_column,
        label_column=label_column,
        numbers=label_numbers(item, labels),
        labels=list(labels),
        max_length=max_length,
    )
    return map_rows(split, encode, features=_FEATURES, places=places)


def find_words(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Find words in a text, one after the other.

    Args:
        text: The text.
        words: Its words, in order.

    Returns:
        First character and end of each word.

    Raises:
        ValueError: A word is empty or does not occur after the one before it.
    """
    spans, end = [], 0
    for word in words:
        start = text.find(word, end) if word else -1
        if start < 0:
            raise ValueError(f"the word {word!r} does not occur in the text {text!r} after character {end}")
        end = start + len(word)
        spans.append((start, end))
    return spans


def align_tags(
    text: str, spans: Sequence[tuple[int, int]], tags: Sequence[str], offsets: Sequence[tuple[int, int]]
) -> list[str]:
    """Give each token of a text a tag.

    The first token of a word gets the tag of the word, the next ones of a "B-X" word get "I-X". A token between two
    words gets "I-X" where the entity X goes on, else "O". A token that lies in two words belongs to the first.

    Args:
        text: The text.
        spans: First character and end of each word, in order.
        tags: Tag of each word.
        offsets: First character and end of each token, in order; a leading space may be part of it.

    Returns:
        A tag per token.
    """
    starts = [start for start, _ in spans]
    aligned, last_word = [], -1
    for start, end in offsets:
        visible = start + len(text[start:end]) - len(text[start:end].lstrip())
        blank = visible >= end
        # A blank token at the first character of a word (a space that lost its width) still stands before the word.
        word = bisect_right(starts, start - 1 if blank else visible) - 1
        if not blank and (word < 0 or visible >= spans[word][1]) and word + 1 < len(spans) and starts[word + 1] < end:
            word += 1
        if word >= 0 and (start if blank else visible) < spans[word][1]:
            aligned.append(tags[word] if word > last_word else _inside(tags[word]))
            last_word = word
        else:
            aligned.append(_between(tags[word] if word >= 0 else "O", tags[word + 1] if word + 1 < len(tags) else "O"))
    return aligned


def _inside(tag: str) -> str:
    return f"I-{tag[2:]}" if tag.startswith("B-") else tag


def _between(left: str, right: str) -> str:
    return right if right.startswith("I-") and _inside(left) == right else "O"


def _encode_batch(
    batch: dict[str, list[Any]],
    rows: list[Place],
    *,
    tokenizer: PreTrainedTokenizerBase,
    text_column: str | None,
    tokens_column: str,
    label_column: str,
    numbers: dict[Hashable, int],
    labels: list[str],
    max_length: int,
) -> dict[str, Any]:
    all_words, all_values = batch[tokens_column], batch[label_column]
    for row, words, values in zip(rows, all_words, all_values, strict=True):
        _check_row(row, words, values, numbers, labels)
    texts = [" ".join(words) for words in all_words] if text_column is None else batch[text_column]
    encoded = tokenize(
        tokenizer, texts, rows, max_length=max_length, return_offsets_mapping=True, return_special_tokens_mask=True
    )
    all_labels = []
    for index, row in enumerate(rows):
        try:
            spans = find_words(texts[index], all_words[index])
        except ValueError as error:
            raise ValueError(f"{row}: {error}") from error
        tags = [labels[numbers[value]] for value in all_values[index]]
        aligned = align_tags(texts[index], spans, tags, encoded["offset_mapping"][index])
        added = encoded["special_tokens_mask"][index]
        all_labels.append([IGNORED if skip else _number(tag, labels) for tag, skip in zip(aligned, added, strict=True)])
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"], "labels": all_labels}


def _check_row(row: Place, words: Any, values: Any, numbers: dict[Hashable, int], labels: list[str]) -> None:
    if words is None or values is None:
        raise ValueError(f"{row}: there are no words or no tags")
    if len(words) != len(values):
        raise ValueError(f"{row}: {len(words)} words, but {len(values)} tags; each word needs one")
    for value in values:
        if value not in numbers:
            raise UnknownLabelError(f"{row}: the tag {value!r} is none of {', '.join(labels[:20])}")


def _number(tag: str, labels: list[str]) -> int:
    """Give the number of a tag; "I-X" falls back to "B-X", and "O" to the ignored label, where labels lack them."""
    for candidate in (tag, f"B-{tag[2:]}"):
        if candidate in labels:
            return labels.index(candidate)
    return IGNORED
