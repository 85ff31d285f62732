"""How each task reads its columns, collects its labels, and encodes a split. `hf_maskattn.tasks` selects the class."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import ClassLabel, Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_maskattn.data.collators import UnknownWordCollator
from hf_maskattn.data.columns import LabelKind, find_further_labels, item_feature, label_names, value_kind
from hf_maskattn.data.encoding import check_text, encode_for_masked_lm, encode_texts
from hf_maskattn.data.loading import Splits
from hf_maskattn.data.pair_encoding import References, RowIds, collect_references, encode_pairs, reference_texts
from hf_maskattn.data.streaming import RowStream, Shards
from hf_maskattn.data.table_reading import RowLocations
from hf_maskattn.data.tag_encoding import encode_tags, warn_about_lost_entities
from hf_maskattn.data.tag_reading import Tagging, is_visible, iterate_tags, warn_about_tags
from hf_maskattn.data.tag_schemes import TagScheme, detect_tag_scheme, has_prefix, iob2_labels
from hf_maskattn.metrics.task_metrics import TaskEvaluation
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.tasks import TASKS

if TYPE_CHECKING:
    from hf_maskattn.training.task_data import TaskData


class TaskEncoder:
    """Base class: reads the text of `data.text_column` and encodes it without labels.

    Args:
        recipe: The recipe.

    Attributes:
        labels: Names of the labels by id, from `learn_labels` or `use_labels`. None for a task without labels.
        further_labels: Names of labels that only splits to evaluate have, which are scored as errors. Their ids follow.
        sequence_labels: Names of the labels of sequences by id, where `labels` are those of tokens. None for other tasks.
        further_sequence_labels: As `further_labels`, for sequences.
        tag_scheme: Scheme of the tags of the training data. None if there is none, or if it was not recorded.
        token_counts: `[V]`, number of times that each token occurs in the training data, for `data.unknown_word_dropout`. None
            if it is 0.
    """

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.task = TASKS[recipe.model.task]
        self.text_column = recipe.data.text_column or "text"
        self.labels: list[str] | None = None
        self.further_labels: list[str] = []
        self.sequence_labels: list[str] | None = None
        self.further_sequence_labels: list[str] = []
        self.tag_scheme: TagScheme | None = None
        self.token_counts: np.ndarray | None = None

    @property
    def has_labels(self) -> bool:
        """Whether rows are labeled with names, not with numbers or text."""
        return self.task.label_column is not None and self.recipe.model.problem_type != "regression"

    @property
    def label_columns(self) -> dict[str, str]:
        """The columns of `labels` and then `sequence_labels`, with the keys of the recipe that list their names."""
        return {self.recipe.label_column: "data.labels"} if self.has_labels else {}

    def required_columns(self) -> dict[str, str]:
        """Return the columns that must exist, with the keys of the recipe that name them."""
        return {self.text_column: "data.text_column"}

    def optional_column(self, split: Dataset | Shards) -> str | None:
        """Return a column that is used only if it exists, or None."""
        return None

    def input_texts(self, split: Dataset) -> Iterable[str]:
        """Return the text that the model reads, row by row."""
        return split[self.text_column]

    def tokenizer_texts(self, split: Dataset, locations: RowLocations) -> Iterable[str]:
        """Yield the text to train a tokenizer on."""
        for row, text in enumerate(self.input_texts(split)):
            check_text(text, locations[row])
            yield text

    def learn_labels(self, splits: Splits, *, as_tagged: bool = False) -> None:
        """Collect the labels of a new model.

        Args:
            splits: The splits. "train" determines the labels (the first rows of a stream).
            as_tagged: Use tags as labels without conversion to IOB2, as version 0.1 did before it recorded `tag_scheme`.

        Raises:
            ValueError: If a row cannot be read, or another split has none of the labels.
        """

    def use_labels(self, name: str, splits: Splits, labels: list[str], tag_scheme: str | None) -> None:
        """Use the labels by id, and the `tag_scheme`, of an existing model for the split to evaluate, `name`."""

    def encode(
        self,
        name: str,
        split: Dataset | Shards,
        tokenizer: PreTrainedTokenizerBase,
        locations: RowLocations,
        *,
        evaluated: bool = False,
    ) -> Dataset | RowStream:
        """Encode a split as model inputs.

        Args:
            name: Name of the split, for messages.
            split: The rows.
            tokenizer: The tokenizer.
            locations: File and line of each row, for messages.
            evaluated: Whether the split is scored rather than trained on.
        """
        return self._encode(split, tokenizer, evaluated, locations=locations, name=name)

    def _encode(self, split: Any, tokenizer: PreTrainedTokenizerBase, evaluated: bool, **settings: Any) -> Dataset | RowStream:
        """Encode a split by the function of the task, whose arguments `settings` name the split and its rows."""
        raise NotImplementedError

    def check_training_split(self, split: Dataset, tokenizer: PreTrainedTokenizerBase, locations: RowLocations) -> None:
        """Log a warning if the tokenizer cannot represent the labels of the train split."""

    def references(
        self, raw: Mapping[str, Any], encoded: Mapping[str, Any], locations: Mapping[str, RowLocations]
    ) -> References | None:
        """Return the reference texts of the rows of some splits. None for a task without references."""
        return None

    def max_length(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Return the maximum number of tokens of an input."""
        max_length = self.recipe.data.max_length
        return tokenizer.model_max_length if max_length is None else max_length

    def max_target_length(self, tokenizer: PreTrainedTokenizerBase) -> int | None:
        """Return the maximum number of tokens of a target. None for a task without targets."""
        return None

    def build_collator(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, seed: int) -> Any:
        """Build the data collator."""
        collator = self.task.collator.load()(tokenizer)
        if self.token_counts is None:
            return collator
        alpha = self.recipe.unknown_word_dropout
        return UnknownWordCollator(collator, tokenizer, counts=self.token_counts, alpha=alpha, seed=seed)

    def build_evaluation(self, data: "TaskData") -> TaskEvaluation:
        """Return the metrics."""
        label_names = [*(data.labels or ()), *self.further_labels]
        return self.task.metrics.load()(
            problem_type=self.recipe.model.problem_type, label_names=label_names, tag_scheme=data.tag_scheme
        )


def _evaluated(splits: Splits) -> dict[str, Dataset]:
    return {name: split for name, split in splits.items() if name != "train"}


class TextEncoder(TaskEncoder):
    """Text classification: a text, and a label, a list of labels or a number."""

    def required_columns(self) -> dict[str, str]:
        """Return the columns that must exist, with the keys of the recipe that name them."""
        return {self.recipe.label_column: "data.label_column", **super().required_columns()}

    def learn_labels(self, splits: Splits, *, as_tagged: bool = False) -> None:
        """Collect the labels of a new model."""
        if self.has_labels:
            kind: LabelKind = "multi" if self.recipe.model.problem_type == "multi_label_classification" else "single"
            known = self.recipe.data.labels
            self.labels = label_names(splits, self.recipe.label_column, kind, known=known, locations=splits.locations)
            self.further_labels = find_further_labels(_evaluated(splits), self.recipe.label_column, self.labels)

    def use_labels(self, name: str, splits: Splits, labels: list[str], tag_scheme: str | None) -> None:
        """Use the labels of an existing model."""
        if self.has_labels:
            self.labels = labels
            self.further_labels = find_further_labels({name: splits[name]}, self.recipe.label_column, labels)

    def _encode(self, split: Any, tokenizer: PreTrainedTokenizerBase, evaluated: bool, **settings: Any) -> Dataset | RowStream:
        return encode_texts(
            split,
            tokenizer,
            text_column=self.text_column,
            label_column=self.recipe.label_column,
            labels=self.labels,
            further_labels=self.further_labels if evaluated else (),
            max_length=self.max_length(tokenizer),
            **settings,
        )


class MaskedLMEncoder(TaskEncoder):
    """Masked language modeling: a text. The collator masks tokens and sets the labels."""

    def _encode(self, split: Any, tokenizer: PreTrainedTokenizerBase, evaluated: bool, **settings: Any) -> Dataset | RowStream:
        max_length = self.max_length(tokenizer)
        return encode_for_masked_lm(split, tokenizer, text_column=self.text_column, max_length=max_length, **settings)

    def build_collator(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, seed: int) -> Any:
        """Build the data collator."""
        return self.task.collator.load()(tokenizer, mlm_probability=self.recipe.data.mlm_probability, seed=seed)


class PairEncoder(TaskEncoder):
    """Text-to-text generation: a source text, and a target text or a list of reference texts."""

    def required_columns(self) -> dict[str, str]:
        """Return the columns that must exist, with the keys of the recipe that name them."""
        data = self.recipe.data
        columns = {data.source_column: "data.source_column", data.target_column: "data.target_column"}
        return columns if data.references_column is None else {data.references_column: "data.references_column", **columns}

    def input_texts(self, split: Dataset) -> Iterable[str]:
        """Return the text that the model reads, row by row."""
        return split[self.recipe.data.source_column]

    def tokenizer_texts(self, split: Dataset, locations: RowLocations) -> Iterable[str]:
        """Return the text to train a tokenizer on: sources and targets."""
        targets = (reference_texts(locations[row], value) for row, value in enumerate(split[self.recipe.data.target_column]))
        return chain(super().tokenizer_texts(split, locations), chain.from_iterable(targets))

    def max_target_length(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Return the maximum number of tokens of a target."""
        length = self.recipe.data.max_target_length
        return self.max_length(tokenizer) if length is None else length

    def _encode(self, split: Any, tokenizer: PreTrainedTokenizerBase, evaluated: bool, **settings: Any) -> Dataset | RowStream:
        return encode_pairs(
            split,
            tokenizer,
            source_column=self.recipe.data.source_column,
            target_column=self.recipe.data.target_column,
            max_source_length=self.max_length(tokenizer),
            max_target_length=self.max_target_length(tokenizer),
            **settings,
        )

    def references(
        self, raw: Mapping[str, Any], encoded: Mapping[str, Any], locations: Mapping[str, RowLocations]
    ) -> References:
        """Return the reference texts of the rows of some splits, by the token ids of source and target."""
        column = self.recipe.data.references_column or self.recipe.data.target_column
        references: dict[RowIds, list[str]] = {}
        for name, split in raw.items():
            for row, texts in collect_references(split, encoded[name], column, locations[name]).items():
                references[row] = [*references.get(row, []), *texts]
        return references

    def build_collator(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, seed: int) -> Any:
        """Build the data collator."""
        return self.task.collator.load()(tokenizer, model=model)

    def build_evaluation(self, data: "TaskData") -> TaskEvaluation:
        """Return the metrics."""
        return self.task.metrics.load()(self.recipe.data.metric, data.tokenizer, references=data.references)


class TagEncoder(TaskEncoder):
    """Token classification: a list of words and a list of tags, and the text of the words if there is one.

    Attributes:
        tags_column: Column with the lists of tags.
        known_tags: Names of all tags of the data by id. None if they are collected from the train split.
        tagging: How the tags become labels, from `learn_labels` or `use_labels`.
    """

    tagging: Tagging

    def __init__(self, recipe: Recipe):
        super().__init__(recipe)
        self.tags_column = recipe.label_column
        self.known_tags = recipe.data.labels

    def required_columns(self) -> dict[str, str]:
        """Return the columns that must exist, with the keys of the recipe that name them."""
        data = self.recipe.data
        columns = {self.tags_column: "data.label_column", data.tokens_column: "data.tokens_column"}
        return columns if data.text_column is None else {**columns, data.text_column: "data.text_column"}

    def optional_column(self, split: Dataset | Shards) -> str | None:
        """Return the column with the text of the words, or None if there is none."""
        return self.text_column if self.text_column in split.column_names else None

    def input_texts(self, split: Dataset) -> Iterable[str]:
        """Return the text that the model reads, row by row. Without a text the words are joined with spaces."""
        column = self.optional_column(split)
        if column is not None:
            return split[column]
        return (" ".join(filter(is_visible, words)) for words in split[self.recipe.data.tokens_column])

    def learn_labels(self, splits: Splits, *, as_tagged: bool = False) -> None:
        """Collect the labels of a new model: those of the entities in IOB2, or the tags if they mark no entities."""
        names = label_names(splits, self.tags_column, "tags", known=self.known_tags, locations=splits.locations)
        scheme = None if as_tagged else self._scheme(splits["train"], names)
        labels = names if scheme in (None, "none") else iob2_labels(names)
        tagging = Tagging(names, labels, scheme, is_strict=self.recipe.data.tag_scheme is not None)
        self._set_tagging(tagging, splits)
        self.tag_scheme = scheme

    def use_labels(self, name: str, splits: Splits, labels: list[str], tag_scheme: str | None) -> None:
        """Use the labels of an existing model. The split may have another tag scheme than its training data."""
        data, split = self.recipe.data, splits[name]
        if data.tag_scheme is None and tag_scheme in (None, "none"):
            tagging = Tagging(labels, labels, "none" if tag_scheme == "none" else None)
        else:
            names = self.known_tags or _tags_in(split, self.tags_column) or labels
            tagging = Tagging(names, labels, self._scheme(split, names), data.tag_scheme is not None)
        self._set_tagging(tagging, Splits({name: split}, splits.locations), evaluated={name: split})

    def _set_tagging(self, tagging: Tagging, splits: Splits, evaluated: Mapping[str, Dataset] | None = None) -> None:
        """Store the tagging, with the tags of the splits to evaluate. Log warnings about tags and about empty words."""
        evaluated = _evaluated(splits) if evaluated is None else evaluated
        key = self.label_columns[self.tags_column]
        further = find_further_labels(evaluated, self.tags_column, tagging.names, tagging.is_known, key=key)
        if tagging.marks_entities:
            others = [_tags_in(split, self.tags_column) or [] for split in evaluated.values()]
            further = [tag for tag in {*further, *chain.from_iterable(others)} if has_prefix(tag)]
        tagging = replace(tagging, further_names=sorted({*further} - {*tagging.names}))
        readers = {}
        for name, split in splits.items():
            is_sample = name == "train" and self.recipe.data.streaming
            shown = f"{name} (the first {split.num_rows} rows)" if is_sample else name
            reader = (tagging.for_evaluation() if name in evaluated else tagging).reader(split, self.tags_column)
            readers[shown] = split, reader, splits.locations[name]
        warn_about_tags(readers, tokens_column=self.recipe.data.tokens_column, label_column=self.tags_column)
        self.tagging, self.labels, self.further_labels = tagging, tagging.labels, tagging.further_labels

    def _scheme(self, split: Dataset, names: list[str]) -> TagScheme:
        """Return the scheme that the recipe sets, or detect the scheme of a split."""
        if self.recipe.data.tag_scheme is not None:
            return self.recipe.data.tag_scheme
        tags = Tagging(names, names).reader(split, self.tags_column).tags
        return detect_tag_scheme(names, iterate_tags(split, self.tags_column, tags))

    def _encode(self, split: Any, tokenizer: PreTrainedTokenizerBase, evaluated: bool, **settings: Any) -> Dataset | RowStream:
        return encode_tags(
            split,
            tokenizer,
            text_column=self.optional_column(split),
            tokens_column=self.recipe.data.tokens_column,
            label_column=self.tags_column,
            tagging=self.tagging.for_evaluation() if evaluated else self.tagging,
            sequence_label_column=None if self.sequence_labels is None else self.recipe.label_column,
            sequence_labels=self.sequence_labels,
            further_sequence_labels=self.further_sequence_labels if evaluated else (),
            max_length=self.max_length(tokenizer),
            by_word=evaluated,
            **settings,
        )

    def check_training_split(self, split: Dataset, tokenizer: PreTrainedTokenizerBase, locations: RowLocations) -> None:
        """Log a warning if tokens cannot mark the exact bounds of some entities."""
        if self.tagging.marks_entities:
            warn_about_lost_entities(
                split,
                tokenizer,
                self.tagging.reader(split, self.tags_column),
                text_column=self.optional_column(split),
                tokens_column=self.recipe.data.tokens_column,
                label_column=self.tags_column,
                locations=locations,
            )


class JointEncoder(TagEncoder):
    """Joint classification: words and tags as for token classification, and a label of the text."""

    def __init__(self, recipe: Recipe):
        super().__init__(recipe)
        self.tags_column = recipe.data.tags_column
        self.known_tags = recipe.data.tags

    @property
    def label_columns(self) -> dict[str, str]:
        """The columns of tags and of the labels of texts, with the keys of the recipe that list their names."""
        return {self.tags_column: "data.tags", **super().label_columns}

    def required_columns(self) -> dict[str, str]:
        """Return the columns that must exist, with the keys of the recipe that name them."""
        columns = super().required_columns()
        return {**columns, self.tags_column: "data.tags_column", self.recipe.label_column: "data.label_column"}

    def learn_labels(self, splits: Splits, *, as_tagged: bool = False) -> None:
        """Collect the tags, as for token classification, and the labels of a new model."""
        super().learn_labels(splits, as_tagged=as_tagged)
        column, known = self.recipe.label_column, self.recipe.data.labels
        self.sequence_labels = label_names(splits, column, "single", known=known, locations=splits.locations)
        self.further_sequence_labels = find_further_labels(_evaluated(splits), column, self.sequence_labels)

    def use_labels(self, name: str, splits: Splits, labels: list[str], tag_scheme: str | None) -> None:
        """Use the tags of an existing model, and its `sequence_labels`."""
        super().use_labels(name, splits, labels, tag_scheme)
        names = self.sequence_labels or []
        self.further_sequence_labels = find_further_labels({name: splits[name]}, self.recipe.label_column, names)


def _tags_in(split: Dataset, column: str) -> list[str] | None:
    """Return the names of the tags of a split. None if they are integers without names."""
    item = item_feature(split.features[column])
    if isinstance(item, ClassLabel):
        return list(item.names)
    return sorted({str(tag) for tags in split[column] for tag in tags or ()}) if value_kind(item) == "string" else None
