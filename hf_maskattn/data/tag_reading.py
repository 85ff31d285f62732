"""Reads rows of tagged words: visible words, with their tags as labels of a model."""

import logging
import unicodedata
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from hf_maskattn.data.columns import MAX_LABELS_IN_ERROR, UnknownLabelError, build_label_ids, item_feature
from hf_maskattn.data.table_reading import RowLocation, RowLocations
from hf_maskattn.data.tag_schemes import TagScheme, convert_to_iob2, has_prefix, has_scheme_prefix, iob2_labels, list_violations

if TYPE_CHECKING:
    from hf_maskattn.data.streaming import Shards

logger = logging.getLogger(__name__)

_INVISIBLE_CATEGORIES = ("Cc", "Cf")
_BATCH_SIZE = 1000


@dataclass(frozen=True)
class TagReader:
    """Reads the words and tags of rows.

    Attributes:
        tags: Tag of each value of the column, as named in the data.
        labels: Labels of the model.
        scheme: Scheme of the tags, which are converted to IOB2; tags are not converted for "none" and `None`.
        is_strict: Whether a tag without a prefix of `scheme` is an error, because the scheme was set rather than detected.
    """

    tags: Mapping[Hashable, str]
    labels: Sequence[str]
    scheme: TagScheme | None
    is_strict: bool = False

    @property
    def converted_scheme(self) -> TagScheme | None:
        """Scheme of tags that mark entities and are converted; `None` for tags that are not converted."""
        return None if self.scheme == "none" else self.scheme

    def read_tags(self, location: RowLocation, words: Any, values: Any) -> list[str]:
        """Read the tags of a row, one for each word, as named in the data.

        Raises:
            ValueError: Words or tags are missing, their numbers differ, a word is not a string, or a tag is unknown
                (`UnknownLabelError`) or does not belong to the scheme that was set.
        """
        if words is None or values is None:
            raise ValueError(f"{location}: words or tags are missing. Add them, or remove the row.")
        if len(words) != len(values):
            raise ValueError(f"{location}: the row must have one tag per word, got {len(words)} words and {len(values)} tags.")
        for index, word in enumerate(words):
            if not isinstance(word, str):
                raise ValueError(f"{location}: word {index} must be a string, got {word!r}. Remove the row, or add the word.")
        return [self._read_tag(location, value) for value in values]

    def _read_tag(self, location: RowLocation, value: Any) -> str:
        tag, scheme = self.tags.get(value, value), self.converted_scheme
        if scheme is not None and isinstance(tag, str):
            if self.is_strict and not has_scheme_prefix(tag, scheme):
                raise ValueError(
                    f"{location}: a tag must be O or have a prefix of data.tag_scheme={scheme}, got {tag!r}. Set the scheme of "
                    "the data, or remove data.tag_scheme to detect it."
                )
            # Only the entity type must be known: other rows or splits may have other prefixes.
            is_known = tag == "O" or (has_prefix(tag) and f"B-{tag[2:]}" in self.labels)
        else:
            is_known = value in self.tags and tag in self.labels
        if not is_known:
            known = list(dict.fromkeys(self.tags.values())) or list(self.labels)
            raise UnknownLabelError(
                f"{location}: the tag must be one of {', '.join(known[:MAX_LABELS_IN_ERROR])}, got {value!r}."
            )
        return tag

    def read(self, location: RowLocation, words: Any, values: Any) -> tuple[list[str], list[str]]:
        """Read the visible words of a row, and their labels.

        Raises:
            ValueError: As in `read_tags`.
        """
        tags = self.read_tags(location, words, values)
        kept = [is_visible(word) for word in words]
        labels = convert_to_iob2(tags, kept) if self.converted_scheme else list(compress(tags, kept))
        return list(compress(words, kept)), labels


@dataclass(frozen=True)
class Tagging:
    """How the tags of a dataset become labels of a model.

    Attributes:
        names: Names of the tags of the dataset, by id.
        labels: Names of the labels of the model, by id.
        scheme: Scheme of the tags. None if tags are the labels, as in models of version 0.1 before it was recorded.
        is_strict: Whether the recipe sets the scheme, so that a tag without one of its prefixes is an error.
        further_names: Names of tags that only splits to evaluate have.
    """

    names: list[str]
    labels: list[str]
    scheme: TagScheme | None = None
    is_strict: bool = False
    further_names: Sequence[str] = ()

    @property
    def marks_entities(self) -> bool:
        """Whether the tags mark entities, which are converted to IOB2."""
        return self.scheme not in (None, "none")

    @property
    def further_labels(self) -> list[str]:
        """Labels of the further tags, which the model does not have."""
        unknown = [tag for tag in (*self.names, *self.further_names) if not self.is_known(tag)]
        return [label for label in iob2_labels(unknown) if label != "O"] if self.marks_entities else unknown

    def is_known(self, tag: str) -> bool:
        """Return whether the model has a label for a tag, which may have another prefix in its training data."""
        return tag in self.labels or (
            self.marks_entities and (tag == "O" or (has_prefix(tag) and f"B-{tag[2:]}" in self.labels))
        )

    def for_evaluation(self) -> "Tagging":
        """Return the tagging of splits to evaluate, with labels that the model does not have."""
        return replace(self, labels=[*self.labels, *self.further_labels])

    def reader(self, split: "Dataset | Shards", label_column: str) -> TagReader:
        """Build the reader of the lists of tags of a split.

        Raises:
            ValueError: The column has no lists.
        """
        feature = split.features[label_column]
        item = item_feature(feature)
        if item is None:
            raise ValueError(f"the column {label_column!r} must have a list of tags per row, got {feature}. Convert it.")
        all_names = [*self.names, *self.further_names]
        tags = {value: all_names[index] for value, index in build_label_ids(item, self.names, self.further_names).items()}
        return TagReader(tags, self.labels, self.scheme, self.is_strict)


def is_visible(word: str) -> bool:
    """Return whether a word has a character other than white space, controls and formats such as the zero-width space."""
    return any(not char.isspace() and unicodedata.category(char) not in _INVISIBLE_CATEGORIES for char in word)


def iterate_tags(split: Dataset, label_column: str, tags: Mapping[Hashable, str]) -> Iterator[list[str]]:
    """Yield the tags of each row, as `tags` names the values of the column, without values that have no name."""
    for batch in split.select_columns([label_column]).iter(_BATCH_SIZE):
        for values in batch[label_column]:
            yield [tags[value] for value in values or () if value in tags]


def warn_about_tags(
    splits: Mapping[str, tuple[Dataset, TagReader, RowLocations]], *, tokens_column: str, label_column: str
) -> None:
    """Warn once about all invisible words, and once about all tags that violate their scheme.

    Args:
        splits: Rows, their reader and their locations, by the name of the split.
        tokens_column: Column of the lists of words.
        label_column: Column of the lists of tags.

    Raises:
        ValueError: A row cannot be read; the message contains the split and the row.
    """
    invisible, violating = _Findings(), _Findings()
    for name, (split, reader, locations) in splits.items():
        row = 0
        for batch in split.select_columns([tokens_column, label_column]).iter(_BATCH_SIZE):
            for words, values in zip(batch[tokens_column], batch[label_column], strict=True):
                location = locations[row]
                try:
                    tags = reader.read_tags(location, words, values)
                except ValueError as error:
                    raise type(error)(f"the split {name!r}: {error}") from error
                visible = [is_visible(word) for word in words]
                invisible.add(visible.count(False), name, location)
                if reader.converted_scheme is not None:
                    relevant = [tag for tag, is_kept in zip(tags, visible, strict=True) if is_kept or tag != "O"]
                    violations = list_violations(relevant, reader.converted_scheme)
                    violating.add(len(violations), name, location, relevant[violations[0]] if violations else "")
                row += 1
    if invisible.count:
        logger.warning(
            f"{invisible.count} empty words in the column {tokens_column!r} are skipped together with their tags; the first is "
            f"in {invisible.first()}."
        )
    if violating.count:
        reader = next(iter(splits.values()))[1]
        scheme, advice = reader.scheme, "if the tags have another scheme"
        if reader.is_strict:
            advice = "to the scheme of the tags, or remove it to detect it"
        logger.warning(
            f"{violating.count} tags in the column {label_column!r} violate the scheme {scheme} and are read as conlleval "
            f"reads them (a tag that continues no entity begins one); the first is {violating.tag} in {violating.first()}. Set "
            f"data.tag_scheme {advice}."
        )


@dataclass
class _Findings:
    """Count of findings, and the location of the first one."""

    count: int = 0
    split: str = ""
    location: RowLocation | None = None
    tag: str = ""

    def add(self, number: int, split: str, location: RowLocation, tag: str = "") -> None:
        if number and not self.count:
            self.split, self.location, self.tag = split, location, tag
        self.count += number

    def first(self) -> str:
        return f"{self.location}, split {self.split!r}"
