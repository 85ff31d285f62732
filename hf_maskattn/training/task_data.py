"""The data of a recipe: raw splits, the tokenizer, the labels, and model inputs."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

from datasets import Dataset, DatasetInfo, Features
from transformers import PreTrainedTokenizerBase

from hf_maskattn.data.columns import (
    LabelKind,
    UnknownLabelError,
    check_columns,
    has_integer_names,
    item_feature,
    label_names,
    value_kind,
)
from hf_maskattn.data.encoding import encode_for_masked_lm, encode_texts
from hf_maskattn.data.loading import Splits, load_shards, load_splits
from hf_maskattn.data.pair_encoding import References, RowIds, collect_references, encode_pairs, reference_texts
from hf_maskattn.data.streaming import RowStream, Shards
from hf_maskattn.data.table_reading import RowLocations
from hf_maskattn.data.tag_encoding import encode_tags, warn_about_lost_entities
from hf_maskattn.data.tag_reading import is_visible
from hf_maskattn.data.tokenizers import KINDS, load_tokenizer, train_tokenizer
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.training.tagging import Tagging, tagging_of_model, tagging_to_learn

SPLITS = ("train", "validation", "test")
DEFAULT_MAX_LENGTH = 512
LONGEST_MAX_LENGTH = 2**20
"""Tokenizers without a limit of their own name some number far above this one."""
_EXAMPLES = 20


@dataclass(frozen=True)
class TaskData:
    """What a model of a recipe is trained and scored on.

    Args:
        splits: Model inputs, by split; "train" is a `RowStream` if the recipe says so.
        tokenizer: What made them.
        labels: Names of the labels by id; None for regression and masked language modeling.
        about: What the data says about itself.
        tag_scheme: Of token classification, the scheme that the model was trained on; None where it is not recorded.
        references: Of text-to-text generation, the right answers of each row that is scored; else None.
        max_target_length: Of text-to-text generation, the longest target, in tokens; else None.
        examples: Some texts of the validation split, or else of the test split.
    """

    splits: dict[str, Dataset | RowStream]
    tokenizer: PreTrainedTokenizerBase
    labels: list[str] | None
    about: DatasetInfo
    tag_scheme: str | None = None
    references: References | None = None
    max_target_length: int | None = None
    examples: list[str] = field(default_factory=list)


def training_data(recipe: Recipe, seed: int, *, as_tagged: bool = False) -> TaskData:
    """Load all splits, train or load the tokenizer, find the labels.

    Args:
        recipe: The recipe.
        seed: For `validation_fraction`.
        as_tagged: Whether tags of the data are labels of the model as they are, as in runs of before there was a `tag_scheme`.

    Returns:
        The data, with a "train" split.

    Raises:
        ValueError: If the data does not have what the recipe says; likewise TypeError, OSError.
    """
    if not recipe.has_split("train"):
        raise ValueError("there is nothing to train on: set data.source (and data.train_split), or data.train_file.")
    shards = _open(recipe) if recipe.data.streaming else None
    raw = _load(recipe, seed) if shards is None else _load_beside(recipe, shards)
    labels, tagging = None, None
    if recipe.model.task == "token-classification":
        tagging = tagging_to_learn(recipe, raw, as_tagged=as_tagged)
        labels = tagging.labels
    elif _has_labels(recipe):
        labels = label_names(raw, recipe.label_column, _label_kind(recipe), known=recipe.data.labels, locations=raw.locations)
    if labels is not None:
        _check_several(recipe, labels)
    tokenizer = _tokenizer(recipe, raw)
    splits = raw if shards is None else {**raw, "train": shards}
    data = _encode(recipe, splits, tokenizer, labels, tagging, scored=("validation", "test"), locations=raw.locations)
    if tagging is not None and tagging.marks_entities:
        warn_about_lost_entities(
            raw["train"],
            tokenizer,
            tagging.reader(raw["train"], recipe.label_column),
            text_column=_sentence_column(recipe, raw["train"]),
            tokens_column=recipe.data.tokens_column,
            label_column=recipe.label_column,
            locations=raw.locations["train"],
        )
    return replace(data, examples=_examples(recipe, raw))


def evaluation_data(
    recipe: Recipe,
    seed: int,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    labels: list[str],
    tag_scheme: str | None = None,
) -> TaskData:
    """Load one split for a model that exists.

    Args:
        recipe: The recipe.
        seed: For `validation_fraction`.
        split: "train", "validation" or "test".
        tokenizer: The tokenizer of the model.
        labels: The labels of the model, by id.
        tag_scheme: The `tag_scheme` of its configuration.

    Returns:
        The data of that split.

    Raises:
        ValueError: If the recipe has no such split, or its labels are not those of the model.
    """
    if not recipe.has_split(split):
        present = [name for name in ("validation", "test", "train") if recipe.has_split(name)]
        hint = f" It has a {present[0]} split: score that with --split {present[0]}." if present else ""
        raise ValueError(f"the recipe has no {split} split: set data.{split}_file or data.{split}_split.{hint}")
    if split == "train" and recipe.data.streaming:
        raise ValueError("the train split is a stream (data.streaming), which has no end: score validation or test.")
    raw = _load(recipe, seed, only=split)
    if _has_labels(recipe):
        _check_positions(recipe, seed, raw[split].features, labels)
    tagging = None
    if recipe.model.task == "token-classification":
        tagging = tagging_of_model(recipe, split, raw, labels, tag_scheme)
    data = _encode(
        recipe,
        {split: raw[split]},
        tokenizer,
        labels if _has_labels(recipe) else None,
        tagging,
        scored=(split,),
        locations=raw.locations,
    )
    return replace(data, tag_scheme=tag_scheme)


def _check_several(recipe: Recipe, labels: list[str]) -> None:
    """Refuse to train a model that can give one answer only."""
    if len(labels) > 1 or _label_kind(recipe) == "multi":
        return
    seen = f"the first {recipe.data.sample_rows} rows" if recipe.data.streaming else "the train split"
    way_out = "name all labels in data.labels, or raise data.sample_rows" if recipe.data.streaming else "give rows of others"
    raise ValueError(
        f"the column {recipe.label_column!r} must have two different labels or more, got only {', '.join(labels) or 'none'} in "
        f"{seen}: there is nothing to tell apart. Name another column (data.label_column=...), or {way_out}."
    )


def _check_positions(recipe: Recipe, seed: int, features: Features, labels: list[str]) -> None:
    """Refuse whole numbers as positions in the labels of a model where the train split says that they are texts."""
    feature = features[recipe.label_column]
    is_position = value_kind(item_feature(feature) or feature) == "integer" and not has_integer_names(labels)
    if is_position and recipe.data.labels is None and recipe.has_split("train") and not recipe.data.streaming:
        splits = _load(recipe, seed)
        label_names(splits, recipe.label_column, _label_kind(recipe), locations=splits.locations)


def _load(recipe: Recipe, seed: int, only: str | None = None) -> Splits:
    data = recipe.data
    sources = {name: (getattr(data, f"{name}_file"), getattr(data, f"{name}_split")) for name in SPLITS}
    if only is not None:
        # The validation split may have to be cut from the train split.
        needed = {only, "train"} if only == "validation" and data.validation_fraction is not None else {only}
        sources = {name: source if name in needed else (None, None) for name, source in sources.items()}
    settings = {f"{name}_file": file for name, (file, _) in sources.items()}
    settings |= {f"{name}_split": split for name, (_, split) in sources.items()}
    return load_splits(
        data.source,
        subset=data.subset,
        **settings,
        csv_separator=data.csv_separator,
        validation_fraction=data.validation_fraction if only in (None, "validation") else None,
        label_column=recipe.label_column if _has_labels(recipe) else None,
        seed=seed,
        required_columns=_required_columns(recipe),
        streaming=data.streaming,
    )


def _open(recipe: Recipe) -> Shards:
    """Open the train split of a stream, with the columns that are needed."""
    data, columns = recipe.data, _required_columns(recipe)
    shards = load_shards(
        data.source,
        subset=data.subset,
        train_file=data.train_file,
        csv_separator=data.csv_separator,
        train_split=str(data.train_split),
        required_columns=columns,
    )
    sentence = _sentence_column(recipe, shards)
    if sentence is not None and sentence not in columns:
        check_columns("train", shards, {sentence: "data.text_column"})
        columns[sentence] = "data.text_column"
    return shards.select(list(columns))


def _load_beside(recipe: Recipe, shards: Shards) -> Splits:
    """Load the first rows of a stream, and the other splits whole."""
    others = replace(recipe, data=replace(recipe.data, train_file=None, train_split=None))
    loaded = _load(others, seed=0) if any(others.has_split(name) for name in SPLITS) else Splits({}, {})
    return loaded.with_split("train", shards.first_rows(recipe.data.sample_rows), RowLocations(shards.files))


def _required_columns(recipe: Recipe) -> dict[str, str]:
    """List the columns that are needed, with the keys that name them."""
    data = recipe.data
    if recipe.model.task == "text2text-generation":
        columns = {data.source_column: "data.source_column", data.target_column: "data.target_column"}
        return columns if data.references_column is None else {data.references_column: "data.references_column", **columns}
    columns = {} if recipe.model.task == "fill-mask" else {recipe.label_column: "data.label_column"}
    if recipe.model.task == "token-classification":
        columns[data.tokens_column] = "data.tokens_column"
        return columns if data.text_column is None else {**columns, data.text_column: "data.text_column"}
    return {**columns, _text_column(recipe): "data.text_column"}


def _tokenizer(recipe: Recipe, raw: Splits) -> PreTrainedTokenizerBase:
    data = recipe.data
    if data.tokenizer in KINDS:
        return train_tokenizer(
            _all_texts(recipe, raw["train"], raw.locations["train"]),
            kind=data.tokenizer,
            vocab_size=data.vocab_size,
            lowercase=data.lowercase,
            max_length=DEFAULT_MAX_LENGTH if data.max_length is None else data.max_length,
            for_generation=recipe.model.task == "text2text-generation",
        )
    tokenizer = load_tokenizer(str(recipe.model.pretrained or data.tokenizer), max_length=data.max_length)
    if tokenizer.model_max_length > LONGEST_MAX_LENGTH:
        tokenizer.model_max_length = DEFAULT_MAX_LENGTH
    return tokenizer


def _all_texts(recipe: Recipe, split: Dataset, locations: RowLocations) -> Iterable[str]:
    """Take what the tokenizer has to know: what is read, and what is written."""
    targets = split[recipe.data.target_column] if recipe.model.task == "text2text-generation" else []
    targets_of_rows = (reference_texts(locations[row], value) for row, value in enumerate(targets))
    return chain(_texts(recipe, split), chain.from_iterable(targets_of_rows))


def _texts(recipe: Recipe, split: Dataset) -> Iterable[str]:
    if recipe.model.task == "text2text-generation":
        return split[recipe.data.source_column]
    column = _sentence_column(recipe, split) if recipe.model.task == "token-classification" else _text_column(recipe)
    if column is not None:
        return split[column]
    return (" ".join(filter(is_visible, words)) for words in split[recipe.data.tokens_column])


def _examples(recipe: Recipe, raw: Mapping[str, Dataset]) -> list[str]:
    """Take texts that are there to be looked at: never any that the model is trained on."""
    split = next((raw[name] for name in ("validation", "test") if name in raw), None)
    if split is None:
        return []
    return list(_texts(recipe, split.select(range(min(_EXAMPLES, split.num_rows)))))


def _text_column(recipe: Recipe) -> str:
    return recipe.data.text_column or "text"


def _sentence_column(recipe: Recipe, split: Dataset | Shards) -> str | None:
    """Find the column with the text that tagged words come from, None if there are only the words."""
    return _text_column(recipe) if _text_column(recipe) in split.column_names else None


def _encode(
    recipe: Recipe,
    raw: Mapping[str, Dataset | Shards],
    tokenizer: PreTrainedTokenizerBase,
    labels: list[str] | None,
    tagging: Tagging | None,
    scored: tuple[str, ...],
    locations: Mapping[str, RowLocations],
) -> TaskData:
    data = recipe.data
    max_length = tokenizer.model_max_length if data.max_length is None else data.max_length
    max_target_length = max_length if data.max_target_length is None else data.max_target_length

    def encode(name: str, split: Dataset | Shards, locations: RowLocations) -> Dataset | RowStream:
        if recipe.model.task == "fill-mask":
            return encode_for_masked_lm(
                split, tokenizer, text_column=_text_column(recipe), max_length=max_length, locations=locations, name=name
            )
        if tagging is not None:
            return encode_tags(
                split,
                tokenizer,
                text_column=_sentence_column(recipe, split),
                tokens_column=data.tokens_column,
                label_column=recipe.label_column,
                max_length=max_length,
                locations=locations,
                name=name,
                **vars(tagging),
            )
        if recipe.model.task == "text2text-generation":
            return encode_pairs(
                split,
                tokenizer,
                source_column=data.source_column,
                target_column=data.target_column,
                max_source_length=max_length,
                max_target_length=max_target_length,
                locations=locations,
                name=name,
            )
        return encode_texts(
            split,
            tokenizer,
            text_column=_text_column(recipe),
            label_column=recipe.label_column,
            labels=labels,
            max_length=max_length,
            locations=locations,
            name=name,
        )

    splits = {name: encode(name, split, locations[name]) for name, split in raw.items()}
    stream = splits.get("train")
    if isinstance(stream, RowStream):
        encode_batch = stream.encode
        if data.labels is None:
            encode_batch = partial(_encode_with_labels_of_first_rows, encode=stream.encode, rows=data.sample_rows)
        splits["train"] = replace(stream, encode=encode_batch, shuffle_buffer=data.shuffle_buffer)
    # Rows that datasets had in its cache were not cut just now: the tokenizer is saved with its cut all the same.
    tokenizer("", truncation=True, max_length=max_length)
    about = next(iter(raw.values())).info
    if recipe.model.task != "text2text-generation":
        return TaskData(splits, tokenizer, labels, about, tagging.scheme if tagging else None)
    references = _references(recipe, raw, splits, scored, locations)
    return TaskData(splits, tokenizer, None, about, references=references, max_target_length=max_target_length)


def _references(
    recipe: Recipe,
    raw: Mapping[str, Any],
    encoded: Mapping[str, Any],
    scored: tuple[str, ...],
    locations: Mapping[str, RowLocations],
) -> References:
    column = recipe.data.references_column or recipe.data.target_column
    references: dict[RowIds, list[str]] = {}
    for name in (name for name in scored if name in raw):
        for row, texts in collect_references(raw[name], encoded[name], column, locations[name]).items():
            references[row] = [*references.get(row, []), *texts]
    return references


def _encode_with_labels_of_first_rows(
    batch: dict[str, list[Any]], locations: list[Any], *, encode: Callable[..., dict[str, Any]], rows: int
) -> dict[str, Any]:
    try:
        return encode(batch, locations)
    except UnknownLabelError as error:
        raise ValueError(
            f"{error} These are the labels of the first {rows} rows. Set data.labels to all labels, or raise data.sample_rows."
        ) from error


def _has_labels(recipe: Recipe) -> bool:
    return recipe.model.task in ("text-classification", "token-classification") and recipe.model.problem_type != "regression"


def _label_kind(recipe: Recipe) -> LabelKind:
    return "multi" if recipe.model.problem_type == "multi_label_classification" else "single"
