"""Tags of words -> labels of the tokens of a raw text, as a pipeline sees it; and tags of tokens -> tags of words."""

import logging
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from typing import Any

from datasets import Dataset, Features, List, Value
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerBase

from hf_maskattn.data.encoding import cut_column, map_rows, tokenize
from hf_maskattn.data.places import Place, Places
from hf_maskattn.data.shards import Shards
from hf_maskattn.data.streaming import RowStream
from hf_maskattn.data.tag_reading import TagReader
from hf_maskattn.data.tag_schemes import TagScheme, find_entities
from hf_maskattn.data.tokenizer_kinds import WORDS_AND_MARKS
from hf_maskattn.model.losses import IGNORED

logger = logging.getLogger(__name__)

_FEATURES = Features(
    {
        "input_ids": List(Value("int32")),
        "attention_mask": List(Value("int8")),
        "labels": List(Value("int64")),
    }
)
_ROWS_CHECKED = 1000
_WORDS = pre_tokenizers.Split(WORDS_AND_MARKS, "removed", invert=True)


def encode_tags(
    split: Dataset | Shards,
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
    places: Places | None = None,
    name: str = "",
) -> Dataset | RowStream:
    """Turn words with a tag each into model inputs with a label per token.

    The raw text is cut, not the words, so that training sees what a pipeline sees; a token gets the tag of the word
    that its characters lie in (see `align_tags`). Words without a visible character are skipped together with their tags.

    Args:
        split: Rows with words and tags.
        tokenizer: What cuts the texts; a fast one.
        text_column: Column of the raw text; `None` to join the words by spaces.
        tokens_column: Column of the lists of words, in the order of the text.
        label_column: Column of the lists of tags: names, numbers of a `ClassLabel`, or places in `labels`.
        labels: Labels of the model by id, such as `["O", "B-DAY", "I-DAY"]`.
        max_length: Largest number of tokens; the rest of a text is cut off.
        places: Where the rows stand, for error messages.
        names: Names of the tags of the data in the order of their numbers; `None` where they are `labels`.
        scheme: Scheme of the tags of the data, which are converted to IOB2; "none" for tags that stand for themselves, so that
            all tokens of a word get its tag; `None` for tags that are labels of the model as they are.
        is_strict: Whether a tag without a prefix of `scheme` is an error.
        name: Name of the split, for the warning of rows that are cut.

    Returns:
        Columns `input_ids`, `attention_mask` and `labels` (-100 at the special tokens that the tokenizer adds).

    Raises:
        TypeError: A text is no string.
        ValueError: A row has more words than tags or fewer, an unknown tag, or a word that its text does not have.
    """
    encode = partial(
        _encode_batch,
        tokenizer=tokenizer,
        text_column=text_column,
        tokens_column=tokens_column,
        label_column=label_column,
        reader=TagReader.of(
            split, label_column, labels if names is None else names, labels=tuple(labels), scheme=scheme, is_strict=is_strict
        ),
        max_length=max_length,
    )
    limits = {"max_length": max_length}
    return map_rows(split, encode, features=_FEATURES, limits=limits, name=name, places=places)


def find_words(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Find words in a text, one after the other.

    Args:
        text: The text.
        words: Its words, in order; white space around them is no part of them.

    Returns:
        First character and end of each word.

    Raises:
        ValueError: A word is empty or does not occur after the one before it.
    """
    spans, end = [], 0
    for word in map(str.strip, words):
        start = text.find(word, end) if word else -1
        if start < 0:
            raise ValueError(f"the word {word!r} does not occur in the text {text!r} after character {end}")
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
    """Give each token of a text a tag.

    The first token of an entity gets "B-X", the next ones "I-X"; those of a word without a prefix all get its tag. A token
    between two words gets "I-X" where the entity X goes on, else "O". A token that lies in two words belongs to the first.

    Args:
        text: The text.
        spans: First character and end of each word, in order.
        tags: Tag of each word; entities as in IOB2.
        offsets: First character and end of each token, in order; a leading space may be part of it.
        mark_entities: Whether "B-" and "I-" mark entities; otherwise they are a part of a tag as any other.

    Returns:
        A tag per token.
    """
    words = _words_of_tokens(text, spans, offsets)
    if not mark_entities:
        return [tags[word] if is_inside else "O" for word, is_inside in words]
    heads = _heads(tags)
    aligned, begun = [], set()
    for word, is_inside in words:
        if not is_inside:
            aligned.append(_between(tags[word] if word >= 0 else "O", tags[word + 1] if word + 1 < len(tags) else "O"))
            continue
        # The first token of an entity begins it, also where its first word has no token.
        head = heads[word]
        aligned.append(_inside(tags[word]) if head is None or head in begun else tags[head])
        begun.add(head)
    return aligned


def warn_of_lost_entities(
    split: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    reader: TagReader,
    *,
    text_column: str | None,
    tokens_column: str,
    label_column: str,
    places: Places,
) -> None:
    """Warn if tokens cannot mark some entities of the first 1,000 rows, since they lie in two words or reach beyond one.

    Args:
        split: Rows with words and tags.
        tokenizer: What cuts the texts.
        reader: Reads their tags.
        text_column: Column of the raw text; `None` to join the words by spaces.
        tokens_column: Column of the lists of words.
        label_column: Column of the lists of tags.
        places: Where the rows stand, for the warning and error messages.

    Raises:
        ValueError: See `encode_tags`.
    """
    lost, total, first = 0, 0, 0
    for row, item in enumerate(split.select(range(min(_ROWS_CHECKED, split.num_rows)))):
        words, tags = reader.read(places(row), item[tokens_column], item[label_column])
        text = " ".join(words) if text_column is None else item[text_column]
        if not isinstance(text, str):
            continue  # which is told when the row is encoded
        spans = _spans(places(row), text, words)
        offsets = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)["offset_mapping"]
        expected = _marked(text, spans, tags)
        found = _marked(text, offsets, align_tags(text, spans, tags, offsets))
        if expected - found and not lost:
            first = row
        lost += len(expected - found)
        total += len(expected)
    if lost:
        logger.warning(
            f"{lost} of {total} entities in the first rows cannot be learned exactly, since a token lies in two words or "
            f"reaches beyond the entity; the first is in {places(first)}. A tokenizer of another kind "
            "may cut there (data.tokenizer: char or bpe)."
        )


def tags_of_words(text: str, tokens: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turn what a pipeline says of each token into what it says of each word.

    Args:
        text: The text.
        tokens: Of each token `entity`, `score`, `start` and `end`, as the pipeline of transformers gives them without
            aggregation and without labels to ignore.

    Returns:
        For each word or punctuation mark of the text `entity` and `score` of its first token, `word`, `start` and `end`. A word
        without a token, such as one that is cut off, is left out.
    """
    words = [span for _, span in _WORDS.pre_tokenize_str(text)]
    tagged, index = [], 0
    for start, end in words:
        # A token that lies in two words gives the tag of both.
        while index < len(tokens) and tokens[index]["end"] <= start:
            index += 1
        if index < len(tokens) and tokens[index]["start"] < end:
            token = tokens[index]
            word = {"word": text[start:end], "start": start, "end": end}
            tagged.append({"entity": token["entity"], "score": token["score"], **word})
    return tagged


def _marked(text: str, spans: Sequence[tuple[int, int]], tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Find type, first character and end of the entities that tags in IOB2 mark."""
    marked = set()
    for name, first, last in find_entities(tags):
        start, end = spans[first][0], spans[last][1]
        while start < end and text[start].isspace():
            start += 1
        # A normalizer may have joined these to the character before them, and left them out of the offsets.
        while end < len(text) and unicodedata.combining(text[end]):
            end += 1
        marked.add((name, start, end))
    return marked


def _spans(row: Place, text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    try:
        return find_words(text, words)
    except ValueError as error:
        raise ValueError(f"{row}: {error}") from error


def _words_of_tokens(text: str, spans: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]]) -> list[tuple[int, bool]]:
    """Find the word that each token lies in and `True`, or the last word before it, -1 if there is none, and `False`."""
    starts = [start for start, _ in spans]
    found = []
    for start, end in offsets:
        visible = start + len(text[start:end]) - len(text[start:end].lstrip())
        blank = visible >= end
        # A blank token at the first character of a word (a space that lost its width) still stands before the word.
        word = bisect_right(starts, start - 1 if blank else visible) - 1
        if not blank and (word < 0 or visible >= spans[word][1]) and word + 1 < len(spans) and starts[word + 1] < end:
            word += 1
        found.append((word, word >= 0 and (start if blank else visible) < spans[word][1]))
    return found


def _heads(tags: Sequence[str]) -> list[int | None]:
    """Find the word with "B-" of the entity that each word belongs to."""
    heads: list[int | None] = []
    for word, tag in enumerate(tags):
        goes_on = word > 0 and tag.startswith("I-") and _inside(tags[word - 1]) == tag
        heads.append(word if tag.startswith("B-") else heads[-1] if goes_on else None)
    return heads


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
    reader: TagReader,
    max_length: int,
) -> dict[str, Any]:
    read = [
        reader.read(row, words, values)
        for row, words, values in zip(rows, batch[tokens_column], batch[label_column], strict=True)
    ]
    texts = [" ".join(words) for words, _ in read] if text_column is None else batch[text_column]
    encoded = tokenize(
        tokenizer, texts, rows, max_length=max_length, return_offsets_mapping=True, return_special_tokens_mask=True
    )
    all_labels = []
    for index, (row, (words, tags)) in enumerate(zip(rows, read, strict=True)):
        spans = _spans(row, texts[index], words)
        offsets = encoded["offset_mapping"][index]
        aligned = align_tags(texts[index], spans, tags, offsets, mark_entities=reader.scheme != "none")
        added = encoded["special_tokens_mask"][index]
        all_labels.append([IGNORED if skip else _number(tag, reader.labels) for tag, skip in zip(aligned, added, strict=True)])
    kept = ("input_ids", "attention_mask", cut_column("max_length"))
    return {**{name: encoded[name] for name in kept}, "labels": all_labels}


def _number(tag: str, labels: Sequence[str]) -> int:
    """Give the number of a tag; "I-X" falls back to "B-X", and "O" to the ignored label, where labels lack them."""
    for candidate in (tag, f"B-{tag[2:]}"):
        if candidate in labels:
            return labels.index(candidate)
    return IGNORED
