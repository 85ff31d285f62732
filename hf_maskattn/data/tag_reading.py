"""Rows of words with a tag each -> the words that a text can hold, with their tags as labels of a model."""

import logging
import unicodedata
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

from datasets import Dataset

from hf_maskattn.data.labels import UnknownLabelError, item_feature, label_numbers
from hf_maskattn.data.places import Place, Places
from hf_maskattn.data.shards import Shards
from hf_maskattn.data.tag_schemes import TagScheme, convert_to_iob2, find_contradictions, has_prefix, has_prefix_of

logger = logging.getLogger(__name__)

_INVISIBLE = ("Cc", "Cf")
_ROWS_READ_TOGETHER = 1000


@dataclass(frozen=True)
class TagReader:
    """Reads words and tags of rows.

    Args:
        tags: Tag of each value of the column, as the data names it.
        labels: Labels of the model.
        scheme: Scheme of the tags, which are converted to IOB2; "none" or `None` takes them as they are.
        is_strict: Whether a tag without a prefix of `scheme` is an error, since it was not detected but set.
    """

    tags: Mapping[Hashable, str]
    labels: Sequence[str]
    scheme: TagScheme | None
    is_strict: bool = False

    @classmethod
    def of(cls, split: Dataset | Shards, label_column: str, names: Sequence[str], **settings: Any) -> "TagReader":
        """Build the reader of a split.

        Args:
            split: The rows.
            label_column: Column of the lists of tags.
            names: Names of the tags of the data in the order of their numbers.
            **settings: `labels`, `scheme` and `is_strict`.

        Raises:
            ValueError: The column holds no lists.
        """
        item = item_feature(split.features[label_column])
        if item is None:
            raise ValueError(
                f"the column {label_column!r} holds {split.features[label_column]}; a list of tags per row is needed"
            )
        return cls({value: names[number] for value, number in label_numbers(item, names).items()}, **settings)

    @property
    def converted_scheme(self) -> TagScheme | None:
        """The scheme of tags that mark entities and are converted; `None` for tags that are taken as they are."""
        return None if self.scheme == "none" else self.scheme

    def tags_of(self, row: Place, words: Any, values: Any) -> list[str]:
        """Read the tags of a row, one for each word, as the data names them.

        Args:
            row: Where the row stands, for error messages.
            words: The words.
            values: The tags as they stand in the column.

        Returns:
            The tags.

        Raises:
            ValueError: There are no words or tags, another number of them, a word is no string, or a tag is unknown
                (`UnknownLabelError`) or not of the scheme that was set.
        """
        if words is None or values is None:
            raise ValueError(f"{row}: there are no words or no tags")
        if len(words) != len(values):
            raise ValueError(f"{row}: {len(words)} words, but {len(values)} tags; each word needs one")
        for index, word in enumerate(words):
            if not isinstance(word, str):
                raise ValueError(f"{row}: word {index} must be a string, got {word!r}. Remove the row, or write the word")
        tags, scheme = [], self.converted_scheme
        for value in values:
            # A tag of an entity is known by its type, whichever prefixes the first rows or the training split have.
            tag = self.tags.get(value, value)
            if scheme is not None and isinstance(tag, str):
                if self.is_strict and not has_prefix_of(tag, scheme):
                    raise ValueError(
                        f"{row}: a tag must be O or have a prefix of data.tag_scheme={scheme}, got {tag!r}. Set the scheme "
                        "of the data, or remove data.tag_scheme to have it detected"
                    )
                is_known = tag == "O" or (has_prefix(tag) and f"B-{tag[2:]}" in self.labels)
            else:
                is_known = value in self.tags and tag in self.labels
            if not is_known:
                raise UnknownLabelError(f"{row}: the tag {value!r} is none of {', '.join(self._known()[:20])}")
            tags.append(tag)
        return tags

    def read(self, row: Place, words: Any, values: Any) -> tuple[list[str], list[str]]:
        """Read a row.

        Args:
            row: Where the row stands, for error messages.
            words: The words.
            values: The tags as they stand in the column.

        Returns:
            The words with a visible character, and the labels of these.

        Raises:
            ValueError: See `tags_of`.
        """
        tags = self.tags_of(row, words, values)
        kept = [is_visible(word) for word in words]
        return list(compress(words, kept)), convert_to_iob2(tags, kept) if self.converted_scheme else list(compress(tags, kept))

    def _known(self) -> list[str]:
        return list(dict.fromkeys(self.tags.values())) or list(self.labels)


def is_visible(word: str) -> bool:
    """Tell whether a word has a character other than white space, controls and formats such as the zero-width space."""
    return any(not character.isspace() and unicodedata.category(character) not in _INVISIBLE for character in word)


def tag_lists(split: Dataset, label_column: str, tags: Mapping[Hashable, str]) -> Iterator[list[str]]:
    """Yield the tags of each row as the data names them, without those that have no name.

    Args:
        split: The rows.
        label_column: Column of the lists of tags.
        tags: Tag of each value of the column.
    """
    for batch in split.select_columns([label_column]).iter(_ROWS_READ_TOGETHER):
        for values in batch[label_column]:
            yield [tags[value] for value in values or () if value in tags]


def warn_of_tags(splits: Mapping[str, tuple[Dataset, TagReader, Places]], *, tokens_column: str, label_column: str) -> None:
    """Warn once of all words that cannot be seen, and once of all tags that contradict their scheme.

    Args:
        splits: Rows, the reader of these, and where they stand, by the name of the split.
        tokens_column: Column of the lists of words.
        label_column: Column of the lists of tags.

    Raises:
        ValueError: A row cannot be read; the message names the split and the row.
    """
    empty, contradicting = _Findings(), _Findings()
    for name, (split, reader, places) in splits.items():
        row = 0
        for batch in split.select_columns([tokens_column, label_column]).iter(_ROWS_READ_TOGETHER):
            for words, values in zip(batch[tokens_column], batch[label_column], strict=True):
                place = places(row)
                try:
                    tags = reader.tags_of(place, words, values)
                except ValueError as error:
                    raise type(error)(f"the split {name!r}: {error}") from error
                visible = [is_visible(word) for word in words]
                empty.add(visible.count(False), name, place)
                if reader.converted_scheme is not None:
                    seen = [tag for tag, is_seen in zip(tags, visible, strict=True) if is_seen or tag != "O"]
                    wrong = find_contradictions(seen, reader.converted_scheme)
                    contradicting.add(len(wrong), name, place, seen[wrong[0]] if wrong else "")
                row += 1
    if empty.count:
        logger.warning(
            f"{empty.count} empty words in the column {tokens_column!r} are skipped together with their tags; the first is in "
            f"{empty.first()}."
        )
    if contradicting.count:
        scheme = next(iter(splits.values()))[1].scheme
        logger.warning(
            f"{contradicting.count} tags in the column {label_column!r} contradict the scheme {scheme} and are read as "
            f"conlleval reads them (a tag that continues no entity begins one); the first is {contradicting.tag} in "
            f"{contradicting.first()}. Set data.tag_scheme if the tags have another scheme."
        )


@dataclass
class _Findings:
    count: int = 0
    split: str = ""
    place: Place | None = None
    tag: str = ""

    def add(self, number: int, split: str, place: Place, tag: str = "") -> None:
        if number and not self.count:
            self.split, self.place, self.tag = split, place, tag
        self.count += number

    def first(self) -> str:
        return f"{self.place}, split {self.split!r}"
