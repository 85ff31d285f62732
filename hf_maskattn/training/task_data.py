"""The data of a recipe: raw splits, the tokenizer, the labels, and model inputs."""

from collections.abc import Iterable
from dataclasses import dataclass

from datasets import Dataset, DatasetDict, DatasetInfo
from transformers import PreTrainedTokenizerBase

from hf_maskattn.data.encoding import encode_for_masked_lm, encode_texts
from hf_maskattn.data.labels import LabelKind, label_names
from hf_maskattn.data.loading import load_splits
from hf_maskattn.data.tag_encoding import encode_tags
from hf_maskattn.data.tokenizer_loading import load_tokenizer
from hf_maskattn.data.tokenizer_training import KINDS, train_tokenizer
from hf_maskattn.training.recipe import Recipe

DEFAULT_MAX_LENGTH = 512
LONGEST_MAX_LENGTH = 2**20
"""Tokenizers without a limit of their own name some number far above this one."""


@dataclass(frozen=True)
class TaskData:
    """What a model of a recipe is trained and scored on.

    Args:
        splits: Model inputs, by split.
        tokenizer: What made them.
        labels: Names of the labels by id; None for regression and masked language modeling.
        about: What the data says about itself.
    """

    splits: DatasetDict
    tokenizer: PreTrainedTokenizerBase
    labels: list[str] | None
    about: DatasetInfo


def training_data(recipe: Recipe, seed: int) -> TaskData:
    """Load all splits, train or load the tokenizer, find the labels.

    Args:
        recipe: The recipe.
        seed: For `validation_fraction`.

    Returns:
        The data, with a "train" split.

    Raises:
        ValueError: If the data does not have what the recipe says; likewise TypeError, OSError.
    """
    if not recipe.has_split("train"):
        raise ValueError("there is nothing to train on: set data.source (and data.train_split), or data.train_file.")
    raw = _load(recipe, seed)
    tokenizer = _tokenizer(recipe, raw["train"])
    labels = label_names(raw, recipe.label_column, _label_kind(recipe)) if _has_labels(recipe) else None
    return _encode(recipe, raw, tokenizer, labels)


def evaluation_data(recipe: Recipe, seed: int, split: str, tokenizer: PreTrainedTokenizerBase, labels: list[str]) -> TaskData:
    """Load one split for a model that exists.

    Args:
        recipe: The recipe.
        seed: For `validation_fraction`.
        split: "train", "validation" or "test".
        tokenizer: The tokenizer of the model.
        labels: The labels of the model, by id.

    Returns:
        The data of that split.

    Raises:
        ValueError: If the recipe has no such split, or its labels are not those of the model.
    """
    if not recipe.has_split(split):
        raise ValueError(f"the recipe has no {split} split: set data.{split}_file or data.{split}_split.")
    raw = _load(recipe, seed, only=split)
    return _encode(recipe, DatasetDict({split: raw[split]}), tokenizer, labels if _has_labels(recipe) else None)


def _load(recipe: Recipe, seed: int, only: str | None = None) -> DatasetDict:
    data = recipe.data
    columns = [] if recipe.model.task == "fill-mask" else [recipe.label_column]
    if recipe.model.task == "token-classification":
        columns += [data.tokens_column]
        columns += [] if data.text_column is None else [data.text_column]
    else:
        columns += [_text_column(recipe)]
    places = {name: (getattr(data, f"{name}_file"), getattr(data, f"{name}_split")) for name in ("train", "validation", "test")}
    if only is not None:
        # The validation split may have to be cut from the train split.
        needed = {only, "train"} if only == "validation" and data.validation_fraction is not None else {only}
        places = {name: place if name in needed else (None, None) for name, place in places.items()}
    settings = {f"{name}_file": file for name, (file, _) in places.items()}
    settings |= {f"{name}_split": split for name, (_, split) in places.items()}
    return load_splits(
        data.source,
        subset=data.subset,
        **settings,
        validation_fraction=data.validation_fraction if only in (None, "validation") else None,
        seed=seed,
        required_columns=columns,
    )


def _tokenizer(recipe: Recipe, train: Dataset) -> PreTrainedTokenizerBase:
    data = recipe.data
    if data.tokenizer in KINDS:
        return train_tokenizer(
            _texts(recipe, train),
            kind=data.tokenizer,
            vocab_size=data.vocab_size,
            lowercase=data.lowercase,
            max_length=data.max_length or DEFAULT_MAX_LENGTH,
        )
    tokenizer = load_tokenizer(str(recipe.model.pretrained or data.tokenizer), max_length=data.max_length)
    if tokenizer.model_max_length > LONGEST_MAX_LENGTH:
        tokenizer.model_max_length = DEFAULT_MAX_LENGTH
    return tokenizer


def _texts(recipe: Recipe, split: Dataset) -> Iterable[str]:
    column = _sentence_column(recipe, split) if recipe.model.task == "token-classification" else _text_column(recipe)
    return split[column] if column is not None else (" ".join(words) for words in split[recipe.data.tokens_column])


def _text_column(recipe: Recipe) -> str:
    return recipe.data.text_column or "text"


def _sentence_column(recipe: Recipe, split: Dataset) -> str | None:
    """Find the column with the text that tagged words come from, None if there are only the words."""
    return _text_column(recipe) if _text_column(recipe) in split.column_names else None


def _encode(recipe: Recipe, raw: DatasetDict, tokenizer: PreTrainedTokenizerBase, labels: list[str] | None) -> TaskData:
    data, max_length = recipe.data, recipe.data.max_length or tokenizer.model_max_length

    def encode(split: Dataset) -> Dataset:
        if recipe.model.task == "fill-mask":
            return encode_for_masked_lm(split, tokenizer, text_column=_text_column(recipe), max_length=max_length)
        if recipe.model.task == "token-classification":
            return encode_tags(
                split,
                tokenizer,
                text_column=_sentence_column(recipe, split),
                tokens_column=data.tokens_column,
                label_column=recipe.label_column,
                labels=labels or [],
                max_length=max_length,
            )
        return encode_texts(
            split,
            tokenizer,
            text_column=_text_column(recipe),
            label_column=recipe.label_column,
            labels=labels,
            max_length=max_length,
        )

    splits = DatasetDict({name: encode(split) for name, split in raw.items()})
    # Rows that datasets had in its cache were not cut just now: the tokenizer is saved with its cut all the same.
    tokenizer("", truncation=True, max_length=max_length)
    return TaskData(splits, tokenizer, labels, next(iter(raw.values())).info)


def _has_labels(recipe: Recipe) -> bool:
    return recipe.model.task != "fill-mask" and recipe.model.problem_type != "regression"


def _label_kind(recipe: Recipe) -> LabelKind:
    if recipe.model.task == "token-classification":
        return "tags"
    return "multi" if recipe.model.problem_type == "multi_label_classification" else "single"
