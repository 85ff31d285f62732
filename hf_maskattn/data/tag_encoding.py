"""Encodes tagged words as raw text: with a label per token for training, and with a label per word for evaluation."""

import logging
import unicodedata
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from datasets import Dataset, Features, Value
from transformers import PreTrainedTokenizerBase

from hf_maskattn.data.encoding import LABELED_TOKENS, BatchEncoder, add_sequence_labels, map_rows, tokenize, truncation_column
from hf_maskattn.data.table_reading import RowLocation, RowLocations
from hf_maskattn.data.tag_reading import Tagging, TagReader
from hf_maskattn.data.tag_schemes import continuing_tag, extract_entities
from hf_maskattn.model.losses import IGNORED

if TYPE_CHECKING:
    from hf_maskattn.data.streaming import RowStream, Shards

logger = logging.getLogger(__name__)

_MAX_ROWS_CHECKED = 1000

SHARES_TOKEN, HAS_NO_TOKEN, FOLLOWS_LOST_WORD = 1, 2, 3
"""Kinds of words whose labels the model must not read: `label_words` adds `kind * num_labels` to them. Other words have 0."""


def encode_tags(
    split: "Dataset | Shards",
    tokenizer: PreTrainedTokenizerBase,
    *,
    text_column: str | None = None,
    tokens_column: str,
    label_column: str,
    tagging: Tagging,
    max_length: int,
    sequence_label_column: str | None = None,
    sequence_labels: Sequence[str] | None = None,
    further_sequence_labels: Sequence[str] = (),
    by_word: bool = False,
    locations: RowLocations | None = None,
    name: str = "",
) -> "Dataset | RowStream":
    """Encode tagged words as model inputs, with a label per token to train on, or a label per word to evaluate.

    The raw text is tokenized, not the words, so that training and pipelines have the same inputs. A token gets the tag of the
    word that contains it (see `align_tags`), or each word is labeled once (see `label_words`). Words without a visible
    character are skipped together with their tags.

    Args:
        split: Rows with words and tags.
        tokenizer: Fast tokenizer of the model.
        text_column: Column of the raw text; `None` to join the words by spaces.
        tokens_column: Column of the lists of words, in the order of the text.
        label_column: Column of the lists of tags: names, values of a `ClassLabel`, or indices into the names of the tagging.
        tagging: How the tags become labels of the model. Where they mark no entities, all tokens of a word get its tag.
        max_length: Maximum number of tokens; longer texts are truncated.
        sequence_label_column: Column with a label for each text; `None` if there is none.
        sequence_labels: Names of these labels by id.
        further_sequence_labels: Names of labels of texts that the model does not have, for rows that are evaluated.
        by_word: Whether each word has one label. A warning counts the words without a token.
        locations: Locations of the rows, for error messages.
        name: Name of the split, for warnings.

    Returns:
        Columns `input_ids`, `attention_mask` and `labels` (-100 at special tokens), and `sequence_labels` if there is a column.

    Raises:
        TypeError: A text is not a string.
        ValueError: A row has different numbers of words and tags, an unknown tag, or a word that its text does not contain.
    """
    reader = tagging.reader(split, label_column)
    encode: BatchEncoder = _TagEncoder(tokenizer, text_column, tokens_column, label_column, reader, max_length, by_word)
    features = LABELED_TOKENS
    if sequence_label_column is not None:
        encode = add_sequence_labels(encode, split, sequence_label_column, sequence_labels or (), further_sequence_labels)
        features = Features({**features, "sequence_labels": Value("int64")})
    limits = {"max_length": max_length}
    encoded = map_rows(split, encode, features=features, limits=limits, name=name, locations=locations)
    if by_word and isinstance(encoded, Dataset):
        words = [label for row in encoded["labels"] for label in row if label != IGNORED]
        num_lost = sum(split_word_label(label, len(tagging.labels))[1] == HAS_NO_TOKEN for label in words)
        if num_lost:
            logger.warning(
                f"{num_lost:,} of {len(words):,} words of the split {name!r} have no token, because they are beyond "
                f"max_length={max_length} or the tokenizer drops them. They are scored as if the model predicted O."
            )
    return encoded


def locate_words(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Locate consecutive words in a text; white space around them is ignored.

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
            aligned.append(right if right.startswith("I-") and continuing_tag(left) == right else "O")
            continue
        # The first token of an entity gets "B-", even if the first word of the entity has no token.
        first_word = first_words[word]
        aligned.append(continuing_tag(tags[word]) if first_word is None or first_word in begun else tags[first_word])
        begun.add(first_word)
    return aligned


def align_words(
    text: str, spans: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]], *, mark_entities: bool = True
) -> list[int]:
    """Align words with the tokens that have their tags: with the first one if tags mark entities. See `align_tags`.

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

    The columns, the locations and the errors are those of `encode_tags`.
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


def find_first_tokens(text: str, spans: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]]) -> list[int | None]:
    """Find the token of each word whose prediction counts for the word: its first one. Arguments as in `align_tags`.

    Returns:
        Index of the token of each word. A word that begins within the last token of the previous word has the token of that
        word. None for a word without a token, as beyond the maximum length.
    """
    tokens: list[int | None] = [None] * len(spans)
    ends = [0] * len(spans)
    for token, (word, is_inside) in enumerate(_assign_words(text, spans, offsets)):
        if is_inside:
            tokens[word] = token if tokens[word] is None else tokens[word]
            ends[word] = offsets[token][1]
    for word in range(1, len(spans)):
        if tokens[word] is None and ends[word - 1] > spans[word][0]:
            tokens[word], ends[word] = tokens[word - 1], ends[word - 1]
    return tokens


class LabeledWords(NamedTuple):
    """A row whose words are labeled, from `label_words`.

    Args:
        tokens: Its tokens, and padding for words without a token of their own.
        mask: 1 for a token, 0 for padding.
        labels: The label of the word that is predicted at the position; -100 if there is none.
    """

    tokens: list[Any]
    mask: list[int]
    labels: list[int]


def split_word_label(label: Any, num_labels: int) -> tuple[Any, Any]:
    """Split labels from `label_words`, an integer, array or tensor, into label and kind of word."""
    return label % num_labels, label // num_labels


def label_words(
    tokens: Sequence[Any],
    word_tokens: Sequence[int | None],
    word_labels: Sequence[int],
    *,
    continues: Sequence[bool] = (),
    num_labels: int,
    padding: Any,
) -> LabeledWords:
    """Label each word of a row once: at its first token, or at a padding position if it has no token of its own.

    Padding has no effect on the model, and its loss does not read labels there, so that a row can have more labels than
    tokens.

    Args:
        tokens: The tokens of the row.
        word_tokens: Index of the token of each word, from `find_first_tokens`.
        word_labels: Label of each word, in `[0, num_labels)`, or -100.
        continues: Whether each word continues the entity of the previous word. Empty if none does.
        num_labels: Number of labels.
        padding: The token of a padding position.

    Returns:
        The row with its labels, to which `kind * num_labels` is added: SHARES_TOKEN for a word that shares the token of the
        previous word, HAS_NO_TOKEN for one without a token, and FOLLOWS_LOST_WORD where the scheme of the model forbids a
        label, because the word that its entity begins at has no token of its own.
    """
    at_token = [IGNORED] * len(tokens)
    after_token: dict[int, list[int]] = defaultdict(list)  # -1: before the first token
    last, begins_at_lost_word = -1, False
    for word, (token, label) in enumerate(zip(word_tokens, word_labels, strict=True)):
        is_shared = token is not None and token <= last
        is_own = token is not None and not is_shared
        if not continues or not continues[word]:
            begins_at_lost_word = not is_own
        kind = SHARES_TOKEN if is_shared else FOLLOWS_LOST_WORD * begins_at_lost_word if is_own else HAS_NO_TOKEN
        coded = IGNORED if label == IGNORED else label + kind * num_labels
        if token is None or is_shared:
            after_token[last].append(coded)
        else:
            at_token[token], last = coded, token
    row = LabeledWords([], [], [])
    for index in range(-1, len(tokens)):
        if index >= 0:
            row.tokens.append(tokens[index])
            row.mask.append(1)
            row.labels.append(at_token[index])
        row.tokens.extend([padding] * len(after_token[index]))
        row.mask.extend([0] * len(after_token[index]))
        row.labels.extend(after_token[index])
    return row


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
        elif word > 0 and tag.startswith("I-") and continuing_tag(tags[word - 1]) == tag:
            first_words.append(first_words[-1])
        else:
            first_words.append(None)
    return first_words


@dataclass(frozen=True)
class _TagEncoder:
    """Encodes batches of tagged words. Its fields are the arguments of `encode_tags`."""

    tokenizer: PreTrainedTokenizerBase
    text_column: str | None
    tokens_column: str
    label_column: str
    reader: TagReader
    max_length: int
    by_word: bool

    def __call__(self, batch: dict[str, list[Any]], locations: list[RowLocation]) -> dict[str, Any]:
        columns = zip(locations, batch[self.tokens_column], batch[self.label_column], strict=True)
        rows = [self.reader.read(location, words, values) for location, words, values in columns]
        texts = [" ".join(words) for words, _ in rows] if self.text_column is None else batch[self.text_column]
        settings = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
        encoded = tokenize(self.tokenizer, texts, locations, max_length=self.max_length, **settings)
        known = self.reader.labels
        labeled = []
        for index, (words, tags) in enumerate(rows):
            spans = _locate_words_of_row(locations[index], texts[index], words)
            offsets, input_ids = encoded["offset_mapping"][index], encoded["input_ids"][index]
            if self.by_word:
                row = label_words(
                    input_ids,
                    find_first_tokens(texts[index], spans, offsets),
                    [label_id(tag, known) for tag in tags],
                    continues=[self.reader.converted_scheme is not None and tag.startswith("I-") for tag in tags],
                    num_labels=len(known),
                    padding=self.tokenizer.pad_token_id or 0,
                )
            else:
                aligned = align_tags(texts[index], spans, tags, offsets, mark_entities=self.reader.scheme != "none")
                is_special = encoded["special_tokens_mask"][index]
                labels = [IGNORED if skip else label_id(tag, known) for tag, skip in zip(aligned, is_special, strict=True)]
                row = LabeledWords(input_ids, encoded["attention_mask"][index], labels)
            labeled.append(row)
        names, counts = ("input_ids", "attention_mask", "labels"), truncation_column("max_length")
        columns_of_tokens = {name: [row[index] for row in labeled] for index, name in enumerate(names)}
        return {**columns_of_tokens, counts: encoded[counts]}


def label_id(tag: str, labels: Sequence[str]) -> int:
    """Return the id of a tag. If labels lack "I-X", it is the id of "B-X"; if they lack "O", it is ignored."""
    for candidate in (tag, f"B-{tag[2:]}"):
        if candidate in labels:
            return labels.index(candidate)
    return IGNORED
