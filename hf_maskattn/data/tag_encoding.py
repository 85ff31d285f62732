"""Encodes tagged words as raw text with a label per token, and aggregates predictions of tokens to words."""

import logging
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from datasets import Dataset, Features, List, Value
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerBase

from hf_maskattn.data.encoding import map_rows, tokenize, truncation_column
from hf_maskattn.data.table_reading import RowLocation, RowLocations
from hf_maskattn.data.tag_reading import TagReader
from hf_maskattn.data.tag_schemes import TagScheme, extract_entities
from hf_maskattn.data.tokenizers import WORDS_AND_PUNCTUATION
from hf_maskattn.model.losses import IGNORED

if TYPE_CHECKING:
    from hf_maskattn.data.streaming import RowStream, Shards

logger = logging.getLogger(__name__)

_FEATURES = Features(
    {
        "input_ids": List(Value("int32")),
        "attention_mask": List(Value("int8")),
        "labels": List(Value("int64")),
    }
)
_MAX_ROWS_CHECKED = 1000


def encode_tags(
    split: "Dataset | Shards",
    tokenizer: PreTrainedTokenizerBase,
    *,
    text_column: str | None = None,
    tokens_column: str,
    label_column: str,
    labels: Sequence[str],
    max_length: int,
    names: Sequence[str] | None = None,
    scheme: TagScheme | None = None,
    is_strict: bool = False,
    locations: RowLocations | None = None,
    name: str = "",
) -> "Dataset | RowStream":
    """Encode tagged words as model inputs with a label per token.

    The raw text is tokenized, not the words, so that training and pipelines have the same inputs. A token gets the tag of the
    word that contains it (see `align_tags`). Words without a visible character are skipped together with their tags.

    Args:
        split: Rows with words and tags.
        tokenizer: Fast tokenizer of the model.
        text_column: Column of the raw text; `None` to join the words by spaces.
        tokens_column: Column of the lists of words, in the order of the text.
        label_column: Column of the lists of tags: names, values of a `ClassLabel`, or indices into `labels`.
        labels: Labels of the model by id, such as `["O", "B-DAY", "I-DAY"]`.
        max_length: Maximum number of tokens; longer texts are truncated.
        names: Names of the tags of the data in the order of their ids; `None` if they are `labels`.
        scheme: Scheme of the tags of the data, which are converted to IOB2. "none" for tags that do not mark entities: all
            tokens of a word get its tag. `None` for tags that are labels of the model already.
        is_strict: Whether a tag without a prefix of `scheme` is an error.
        locations: Locations of the rows, for error messages.
        name: Name of the split, for the warning about truncated rows.

    Returns:
        Columns `input_ids`, `attention_mask` and `labels` (-100 at special tokens).

    Raises:
        TypeError: A text is not a string.
        ValueError: A row has different numbers of words and tags, an unknown tag, or a word that its text does not contain.
    """
    names = labels if names is None else names
    reader = TagReader.from_column(split, label_column, names, labels=tuple(labels), scheme=scheme, is_strict=is_strict)
    encode = partial(
        _encode_batch,
        tokenizer=tokenizer,
        text_column=text_column,
        tokens_column=tokens_column,
        label_column=label_column,
        reader=reader,
        max_length=max_length,
    )
    return map_rows(split, encode, features=_FEATURES, limits={"max_length": max_length}, name=name, locations=locations)


def locate_words(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Locate consecutive words in a text.

    Args:
        text: The text.
        words: Its words, in order; surrounding white space is ignored.

    Returns:
        Start and end of each word, in characters.

    Raises:
        ValueError: A word is empty, or does not occur after the previous one.
    """
    spans, end = [], 0
    for word in map(str.strip, words):
        start = text.find(word, end) if word else -1
        if start < 0:
            raise ValueError(f"the text must contain the words in order, got {text!r} without {word!r} after character {end}.")
        end = start + len(word)
        spans.append((start, end))
    return spans


def align_tags(
    text: str,
    spans: Sequence[tuple[int, int]],
    tags: Sequence[str],
    offsets: Sequence[tuple[int, int]],
    *,
    mark_entities: bool = True,
) -> list[str]:
    """Align the tags of words with tokens.

    The first token of an entity gets "B-X" and its other tokens get "I-X"; all tokens of a word without a prefix get its tag. A
    token between two words gets "I-X" inside of an entity X, and "O" otherwise. A token that overlaps two words belongs to the
    first one.

    Args:
        text: The text.
        spans: Start and end of each word, in order.
        tags: Tag of each word; entities in IOB2.
        offsets: Start and end of each token, in order; a token may include a leading space.
        mark_entities: Whether "B-" and "I-" mark entities. Otherwise tags are copied to all tokens of a word.

    Returns:
        One tag per token.
    """
    token_words = _assign_words(text, spans, offsets)
    if not mark_entities:
        return [tags[word] if is_inside else "O" for word, is_inside in token_words]
    first_words = _first_words(tags)
    aligned = []
    begun = set()
    for word, is_inside in token_words:
        if not is_inside:
            left = tags[word] if word >= 0 else "O"
            right = tags[word + 1] if word + 1 < len(tags) else "O"
            aligned.append(right if right.startswith("I-") and _continuing_tag(left) == right else "O")
            continue
        # The first token of an entity gets "B-", even if the first word of the entity has no token.
        first_word = first_words[word]
        aligned.append(_continuing_tag(tags[word]) if first_word is None or first_word in begun else tags[first_word])
        begun.add(first_word)
    return aligned


def align_words(
    text: str, spans: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]], *, mark_entities: bool = True
) -> list[int]:
    """Align words with tokens whose tag is that of the word.

    Args:
        text: The text.
        spans: Start and end of each word, in order.
        offsets: Start and end of each token, in order.
        mark_entities: Whether tags mark entities, so that only the first token of a word has its tag (see `align_tags`).

    Returns:
        For each token the index of its word, -1 if it has none.
    """
    aligned, last = [], -1
    for word, is_inside in _assign_words(text, spans, offsets):
        is_first = is_inside and word != last
        aligned.append(word if is_first or (is_inside and not mark_entities) else -1)
        last = word if is_inside else last
    return aligned


def warn_about_lost_entities(
    split: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    reader: TagReader,
    *,
    text_column: str | None,
    tokens_column: str,
    label_column: str,
    locations: RowLocations,
) -> None:
    """Warn if the boundaries of entities in the first 1,000 rows do not align with tokens.

    Args:
        split: Rows with words and tags.
        tokenizer: Tokenizer of the model.
        reader: Reader of the tags.
        text_column: Column of the raw text; `None` to join the words by spaces.
        tokens_column: Column of the lists of words.
        label_column: Column of the lists of tags.
        locations: Locations of the rows, for the warning and error messages.

    Raises:
        ValueError: As in `encode_tags`.
    """
    num_lost, num_entities, first_row = 0, 0, 0
    for row, item in enumerate(split.select(range(min(_MAX_ROWS_CHECKED, split.num_rows)))):
        words, tags = reader.read(locations[row], item[tokens_column], item[label_column])
        text = " ".join(words) if text_column is None else item[text_column]
        if not isinstance(text, str):
            continue  # encoding raises the error
        spans = _locate_words_of_row(locations[row], text, words)
        offsets = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)["offset_mapping"]
        expected = _entity_spans(text, spans, tags)
        lost = expected - _entity_spans(text, offsets, align_tags(text, spans, tags, offsets))
        if lost and not num_lost:
            first_row = row
        num_lost += len(lost)
        num_entities += len(expected)
    if num_lost:
        logger.warning(
            f"{num_lost} of {num_entities} entities in the first rows cannot be learned exactly, because a token overlaps two "
            f"words or extends beyond the entity; the first is in {locations[first_row]}. Another kind of tokenizer may split "
            "there (data.tokenizer: char or bpe)."
        )


def aggregate_words(
    text: str, tokens: Sequence[dict[str, Any]], spans: Sequence[tuple[int, int]] | None = None
) -> list[dict[str, Any]]:
    """Aggregate the predictions of a pipeline for tokens to predictions for words.

    Args:
        text: The text.
        tokens: `entity`, `score`, `start` and `end` of each token, as returned by the pipeline of transformers without
            aggregation and ignored labels.
        spans: Start and end of each word. None for the words and punctuation marks of the text.

    Returns:
        For each word `entity` and `score` of its first token, `word`, `start` and `end`. Words without a token, such as
        truncated ones, are omitted.
    """
    if spans is None:
        words = pre_tokenizers.Split(WORDS_AND_PUNCTUATION, "removed", invert=True).pre_tokenize_str(text)
        spans = [span for _, span in words]
    predictions, index = [], 0
    for start, end in spans:
        # A token that overlaps two words is the prediction of both.
        while index < len(tokens) and tokens[index]["end"] <= start:
            index += 1
        if index < len(tokens) and tokens[index]["start"] < end:
            token = tokens[index]
            word = {"word": text[start:end], "start": start, "end": end}
            predictions.append({"entity": token["entity"], "score": token["score"], **word})
    return predictions


def _entity_spans(text: str, spans: Sequence[tuple[int, int]], tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Return type, start and end of the entities of words or tokens with tags in IOB2."""
    entities = set()
    for entity_type, first, last in extract_entities(tags):
        start, end = spans[first][0], spans[last][1]
        while start < end and text[start].isspace():
            start += 1
        # Normalizers that compose characters omit combining marks from the offsets.
        while end < len(text) and unicodedata.combining(text[end]):
            end += 1
        entities.add((entity_type, start, end))
    return entities


def _locate_words_of_row(location: RowLocation, text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    try:
        return locate_words(text, words)
    except ValueError as error:
        raise ValueError(f"{location}: {error}") from error


def _assign_words(text: str, spans: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]]) -> list[tuple[int, bool]]:
    """Return for each token its word and True, or the previous word (-1 if there is none) and False."""
    word_starts = [start for start, _ in spans]
    assigned = []
    for start, end in offsets:
        visible_start = start + len(text[start:end]) - len(text[start:end].lstrip())
        is_blank = visible_start >= end
        # A blank token at the start of a word (a space of width zero) precedes the word.
        word = bisect_right(word_starts, start - 1 if is_blank else visible_start) - 1
        is_between = not is_blank and (word < 0 or visible_start >= spans[word][1])
        if is_between and word + 1 < len(spans) and word_starts[word + 1] < end:
            word += 1
        is_inside = word >= 0 and (start if is_blank else visible_start) < spans[word][1]
        assigned.append((word, is_inside))
    return assigned


def _first_words(tags: Sequence[str]) -> list[int | None]:
    """Return for each word the first word ("B-") of its entity."""
    first_words: list[int | None] = []
    for word, tag in enumerate(tags):
        if tag.startswith("B-"):
            first_words.append(word)
        elif word > 0 and tag.startswith("I-") and _continuing_tag(tags[word - 1]) == tag:
            first_words.append(first_words[-1])
        else:
            first_words.append(None)
    return first_words


def _continuing_tag(tag: str) -> str:
    """Return the tag of the next word in the same entity."""
    return f"I-{tag[2:]}" if tag.startswith("B-") else tag


def _encode_batch(
    batch: dict[str, list[Any]],
    locations: list[RowLocation],
    *,
    tokenizer: PreTrainedTokenizerBase,
    text_column: str | None,
    tokens_column: str,
    label_column: str,
    reader: TagReader,
    max_length: int,
) -> dict[str, Any]:
    columns = zip(locations, batch[tokens_column], batch[label_column], strict=True)
    rows = [reader.read(location, words, values) for location, words, values in columns]
    texts = [" ".join(words) for words, _ in rows] if text_column is None else batch[text_column]
    encoded = tokenize(
        tokenizer, texts, locations, max_length=max_length, return_offsets_mapping=True, return_special_tokens_mask=True
    )
    all_labels = []
    for index, (words, tags) in enumerate(rows):
        spans = _locate_words_of_row(locations[index], texts[index], words)
        offsets = encoded["offset_mapping"][index]
        aligned = align_tags(texts[index], spans, tags, offsets, mark_entities=reader.scheme != "none")
        is_special = encoded["special_tokens_mask"][index]
        labels = [IGNORED if skip else label_id(tag, reader.labels) for tag, skip in zip(aligned, is_special, strict=True)]
        all_labels.append(labels)
    outputs = {name: encoded[name] for name in ("input_ids", "attention_mask", truncation_column("max_length"))}
    return {**outputs, "labels": all_labels}


def label_id(tag: str, labels: Sequence[str]) -> int:
    """Return the id of a tag. If labels lack "I-X", it is the id of "B-X"; if they lack "O", it is ignored."""
    for candidate in (tag, f"B-{tag[2:]}"):
        if candidate in labels:
            return labels.index(candidate)
    return IGNORED
