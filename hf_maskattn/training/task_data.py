"""The data of a recipe: loads the splits, trains or loads the tokenizer, and encodes model inputs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetInfo
from transformers import PreTrainedTokenizerBase

from hf_maskattn.data.collators import count_tokens, count_unknown_words
from hf_maskattn.data.columns import UnknownLabelError, check_columns, has_integer_names, item_feature, value_kind
from hf_maskattn.data.encoding import Truncation, record_truncation
from hf_maskattn.data.loading import Splits, load_shards, load_splits
from hf_maskattn.data.pair_encoding import References
from hf_maskattn.data.streaming import RowStream, Shards
from hf_maskattn.data.table_reading import RowLocations
from hf_maskattn.data.tokenizers import DEFAULT_MAX_LENGTH, KINDS, load_tokenizer, resolve_max_length, train_tokenizer
from hf_maskattn.data.unlabeled import load_unlabeled_texts, remove_held_out
from hf_maskattn.embeddings.vocabulary import prune_vocabulary
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.tasks import TASKS
from hf_maskattn.training.task_encoders import TaskEncoder

SPLITS = ("train", "validation", "test")
_NUM_EXAMPLES = 20
MANY_UNKNOWN = 0.2
"""Fraction of unknown tokens that is worth a warning."""
_ROWS_PER_BATCH = 1000


@dataclass(frozen=True)
class TaskData:
    """The data that a model is trained and evaluated on.

    Attributes:
        splits: Model inputs by split. "train" is a `RowStream` if the recipe streams it.
        tokenizer: The tokenizer that encoded them.
        encoder: What encoded them.
        info: Description and license of the dataset.
        labels: Names of the labels by id. None for regression and for tasks without labels.
        sequence_labels: For joint classification, names of the labels of sequences by id, else None.
        tag_scheme: For token classification, the tag scheme of the training data. None if it is not recorded.
        references: For text-to-text generation, the reference texts of each row that is evaluated, else None.
        max_target_length: For text-to-text generation, the maximum number of tokens of a target, else None.
        examples: Some texts of the validation or test split.
        raw: The rows before they were encoded, which a teacher and the analysis of errors read.
        unlabeled: Further texts for a teacher, without texts of the validation and test split.
        truncated: What the limits on the number of tokens truncate in the splits that are loaded.
        unknown: Number of unknown tokens and of all tokens in "train", unless it is a stream, and "validation".
    """

    splits: dict[str, Dataset | RowStream]
    tokenizer: PreTrainedTokenizerBase
    encoder: TaskEncoder
    info: DatasetInfo
    labels: list[str] | None
    sequence_labels: list[str] | None = None
    tag_scheme: str | None = None
    references: References | None = None
    max_target_length: int | None = None
    examples: list[str] = field(default_factory=list)
    raw: Splits = field(default_factory=lambda: Splits({}, {}))
    unlabeled: list[str] = field(default_factory=list)
    truncated: list[Truncation] = field(default_factory=list)
    unknown: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def unknown_advice(self) -> str | None:
        """How to have fewer unknown tokens, if the validation split has many."""
        unknown, total = self.unknown.get("validation", (0, 0))
        if unknown <= MANY_UNKNOWN * total:
            return None
        if self.encoder.recipe.data.tokenizer not in KINDS:
            return "Use a tokenizer with the words of this data."
        return (
            "Keep more words with data.min_frequency=1 or a larger data.vocab_size, or split rare words into known pieces with "
            "data.tokenizer=bpe."
        )

    def list_warnings(self) -> list[str]:
        """List what the model does not see as it is written: truncated texts and many unknown tokens."""
        warnings = [str(found) for found in self.truncated]
        if self.unknown_advice is not None:
            unknown, total = self.unknown["validation"]
            warnings.append(
                f"{unknown:,} of {total:,} tokens of the split 'validation' are unknown ({unknown / total:.1%}). "
                f"{self.unknown_advice}"
            )
        return warnings


def training_data(recipe: Recipe, seed: int, *, as_tagged: bool = False, saved_tokenizer: Path | None = None) -> TaskData:
    """Load all splits, train or load the tokenizer, and collect the labels.

    Args:
        recipe: The recipe.
        seed: Seed of `data.validation_fraction`.
        as_tagged: Use tags as labels without conversion, as runs did before `tag_scheme` was recorded.
        saved_tokenizer: Checkpoint of a run to resume. Its tokenizer is used where a new run would load one from the source of
            `model.embeddings`, or prune one.

    Returns:
        The data, with a "train" split.

    Raises:
        ValueError: If the data does not fit the recipe. Likewise TypeError, OSError.
    """
    if not recipe.has_split("train"):
        raise ValueError("the recipe has no train split. Set data.source and data.train_split, or data.train_file.")
    encoder = _encoder_of(recipe)
    shards = _open_stream(recipe, encoder) if recipe.data.streaming else None
    raw = _load(recipe, encoder, seed) if shards is None else _load_with_stream(recipe, encoder, shards)
    encoder.learn_labels(raw, as_tagged=as_tagged)
    _check_several_labels(recipe, encoder)
    unlabeled = _load_unlabeled(recipe, encoder, raw)
    tokenizer = _build_tokenizer(recipe, encoder, raw, saved_tokenizer, unlabeled)
    _check_special_tokens(recipe, encoder, tokenizer)
    splits = raw if shards is None else {**raw, "train": shards}
    with record_truncation() as truncated:
        data = _encode(recipe, encoder, splits, tokenizer, evaluated=("validation", "test"), locations=raw.locations)
    encoder.check_training_split(raw["train"], tokenizer, raw.locations["train"])
    if recipe.unknown_word_dropout > 0:
        token_ids = _token_ids(data.splits["train"], raw["train"], raw.locations["train"])
        encoder.token_counts = count_tokens(token_ids, len(tokenizer))
    data = replace(data, truncated=truncated, unknown=_count_unknown(data))
    return replace(data, tag_scheme=encoder.tag_scheme, examples=_examples(encoder, raw), raw=raw, unlabeled=unlabeled)


def evaluation_data(
    recipe: Recipe,
    seed: int,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    labels: list[str],
    tag_scheme: str | None = None,
    sequence_labels: list[str] | None = None,
) -> TaskData:
    """Load one split of a recipe for an existing model.

    Args:
        recipe: The recipe.
        seed: Seed of `data.validation_fraction`.
        split: "train", "validation" or "test".
        tokenizer: The tokenizer of the model.
        labels: The labels of the model by id.
        tag_scheme: `tag_scheme` of its configuration.
        sequence_labels: `sequence_label_names` of its configuration.

    Raises:
        ValueError: If the recipe has no such split, or its labels are not those of the model.
    """
    if not recipe.has_split(split):
        present = [name for name in ("validation", "test", "train") if recipe.has_split(name)]
        hint = f" The recipe has a {present[0]} split, which --split {present[0]} selects." if present else ""
        raise ValueError(f"the recipe has no {split} split. Set data.{split}_file or data.{split}_split.{hint}")
    if split == "train" and recipe.data.streaming:
        raise ValueError(
            "the train split cannot be evaluated with data.streaming=true. Use --split validation or --split test."
        )
    encoder = _encoder_of(recipe)
    encoder.sequence_labels = sequence_labels
    raw = _load(recipe, encoder, seed, only=split)
    names_of_heads = labels, sequence_labels or []
    for (column, key), names in zip(encoder.label_columns.items(), names_of_heads, strict=False):
        if not _is_set(recipe, key):
            _check_integer_labels(recipe, encoder, seed, raw[split].features[column], names)
    encoder.use_labels(split, raw, labels, tag_scheme)
    data = _encode(recipe, encoder, {split: raw[split]}, tokenizer, evaluated=(split,), locations=raw.locations)
    return replace(data, tag_scheme=tag_scheme, raw=raw)


def _token_ids(split: Dataset | RowStream, raw: Dataset, locations: RowLocations) -> Iterator[Sequence[Sequence[int]]]:
    """Yield batches of the token ids of a split, or of the first rows of a stream, which `raw` has."""
    for start in range(0, raw.num_rows, _ROWS_PER_BATCH):
        stop = min(start + _ROWS_PER_BATCH, raw.num_rows)
        if isinstance(split, RowStream):
            yield split.encode(raw[start:stop], [locations[row] for row in range(start, stop)])["input_ids"]
        else:
            yield split[start:stop]["input_ids"]


def _count_unknown(data: TaskData) -> dict[str, tuple[int, int]]:
    """Count the unknown tokens, and all tokens, of the train and validation split. A stream is not read for that."""
    unknown = {}
    for name in ("train", "validation"):
        split, counts = data.splits.get(name), data.encoder.token_counts if name == "train" else None
        if isinstance(split, Dataset):
            if counts is None:
                counts = count_tokens(_token_ids(split, split, RowLocations()), len(data.tokenizer))
            unknown[name] = count_unknown_words(counts, data.tokenizer)
    return unknown


def _encoder_of(recipe: Recipe) -> TaskEncoder:
    return TASKS[recipe.model.task].encoder.load()(recipe)


def _check_several_labels(recipe: Recipe, encoder: TaskEncoder) -> None:
    """Check that each head of a classifier has at least two classes."""
    if recipe.model.problem_type == "multi_label_classification":
        return
    names_of_heads = encoder.labels or [], encoder.sequence_labels or []
    for (column, key), names in zip(encoder.label_columns.items(), names_of_heads, strict=False):
        if len(names) < 2:
            rows, advice = "the train split", "add rows with other labels"
            if recipe.data.streaming:
                rows, advice = (
                    f"the first {recipe.data.sample_rows} rows",
                    f"list all labels in {key}, or raise data.sample_rows",
                )
            raise ValueError(
                f"the column {column!r} must have at least two different labels, got {', '.join(names) or 'none'} in {rows}. "
                f"Set another column with {encoder.required_columns()[column]}, or {advice}."
            )


def _check_integer_labels(recipe: Recipe, encoder: TaskEncoder, seed: int, feature: Any, labels: list[str]) -> None:
    """Check that integers may be ids of labels: the labels of the train split must not be strings."""
    is_id = value_kind(item_feature(feature) or feature) == "integer" and not has_integer_names(labels)
    if is_id and recipe.has_split("train") and not recipe.data.streaming:
        _encoder_of(recipe).learn_labels(_load(recipe, encoder, seed))


def _is_set(recipe: Recipe, key: str) -> bool:
    return getattr(recipe.data, key.removeprefix("data.")) is not None


def _load(recipe: Recipe, encoder: TaskEncoder, seed: int, only: str | None = None) -> Splits:
    data = recipe.data
    needed = set(SPLITS) if only is None else {only}
    if only == "validation" and data.validation_fraction is not None:
        needed.add("train")
    keys = [(name, f"{name}_{kind}") for name in SPLITS for kind in ("file", "split")]
    return load_splits(
        data.source,
        subset=data.subset,
        **{key: getattr(data, key) if name in needed else None for name, key in keys},
        csv_separator=data.csv_separator,
        validation_fraction=data.validation_fraction if only in (None, "validation") else None,
        label_columns=[*encoder.label_columns],
        seed=seed,
        required_columns=encoder.required_columns(),
        streaming=data.streaming,
    )


def _open_stream(recipe: Recipe, encoder: TaskEncoder) -> Shards:
    """Open the train split of a stream, with the columns that are needed."""
    data, columns = recipe.data, encoder.required_columns()
    shards = load_shards(
        data.source,
        subset=data.subset,
        train_file=data.train_file,
        csv_separator=data.csv_separator,
        train_split=str(data.train_split),
        required_columns=columns,
    )
    text_column = encoder.optional_column(shards)
    if text_column is not None and text_column not in columns:
        check_columns("train", shards, {text_column: "data.text_column"})
        columns[text_column] = "data.text_column"
    return shards.select(list(columns))


def _load_with_stream(recipe: Recipe, encoder: TaskEncoder, shards: Shards) -> Splits:
    """Load the first rows of a stream, and all rows of the other splits."""
    others = replace(recipe, data=replace(recipe.data, train_file=None, train_split=None))
    has_others = any(others.has_split(name) for name in SPLITS)
    loaded = _load(others, encoder, seed=0) if has_others else Splits({}, {})
    first_rows, locations = shards.first_rows(recipe.data.sample_rows), RowLocations(shards.files)
    return Splits({"train": first_rows, **loaded}, {"train": locations, **loaded.locations})


def held_out_texts(encoder: TaskEncoder, raw: Splits) -> Iterable[str]:
    """Return the texts that a model is evaluated on."""
    return chain.from_iterable(encoder.input_texts(raw[split]) for split in ("validation", "test") if split in raw)


def _load_unlabeled(recipe: Recipe, encoder: TaskEncoder, raw: Splits) -> list[str]:
    data = recipe.data
    if data.unlabeled_source is None and data.unlabeled_file is None:
        return []
    texts = load_unlabeled_texts(
        data.unlabeled_source,
        data.unlabeled_file,
        split=data.unlabeled_split,
        text_column=encoder.text_column,
        csv_separator=None if data.unlabeled_file is None else data.csv_separator,
    )
    return remove_held_out(texts, held_out_texts(encoder, raw), kind="unlabeled")


def _build_tokenizer(
    recipe: Recipe, encoder: TaskEncoder, raw: Splits, saved_tokenizer: Path | None, unlabeled: Sequence[str]
) -> PreTrainedTokenizerBase:
    data, source = recipe.data, recipe.model.pretrained or recipe.data.tokenizer or recipe.model.embeddings
    texts = chain(encoder.tokenizer_texts(raw["train"], raw.locations["train"]), unlabeled)
    if data.tokenizer in KINDS:
        return train_tokenizer(
            texts,
            kind=data.tokenizer,
            vocab_size=data.vocab_size,
            min_frequency=recipe.min_frequency,
            lowercase=data.lowercase,
            max_length=DEFAULT_MAX_LENGTH if data.max_length is None else data.max_length,
            for_generation=encoder.task.generates,
        )
    if saved_tokenizer is not None and (recipe.model.embeddings is not None or data.vocabulary == "prune"):
        return load_tokenizer(saved_tokenizer, max_length=data.max_length)
    tokenizer = load_tokenizer(str(source), max_length=data.max_length)
    tokenizer.model_max_length = resolve_max_length(tokenizer)
    if data.vocabulary == "prune":
        tokenizer = prune_vocabulary(tokenizer, texts)
    return tokenizer


def _check_special_tokens(recipe: Recipe, encoder: TaskEncoder, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a tokenizer has the tokens that its task needs."""
    task, source = recipe.model.task, recipe.model.pretrained or recipe.data.tokenizer or recipe.model.embeddings
    if recipe.unknown_word_dropout > 0 and tokenizer.unk_token_id is None:
        raise ValueError(
            f"data.unknown_word_dropout must be 0 with {source}, whose tokenizer has no unknown token, got "
            f"{recipe.unknown_word_dropout}. Remove it."
        )
    kind, token = ("mask", tokenizer.mask_token) if task == "fill-mask" else ("end-of-sequence", tokenizer.eos_token)
    if (task == "fill-mask" or encoder.task.generates) and token is None:
        raise ValueError(
            f"the tokenizer of {source} must have a token for {kind}, which model.task={encoder.task.recipe_name} needs, got "
            "none. Set data.tokenizer to another one, or to bpe to train one."
        )


def _examples(encoder: TaskEncoder, raw: Mapping[str, Dataset]) -> list[str]:
    """Return texts to show in the model card, which the model is not trained on."""
    split = next((raw[name] for name in ("validation", "test") if name in raw), None)
    if split is None:
        return []
    return list(encoder.input_texts(split.select(range(min(_NUM_EXAMPLES, split.num_rows)))))


def _encode(
    recipe: Recipe,
    encoder: TaskEncoder,
    raw: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    evaluated: tuple[str, ...],
    locations: Mapping[str, RowLocations],
) -> TaskData:
    splits = {
        name: encoder.encode(name, split, tokenizer, locations[name], evaluated=name in evaluated)
        for name, split in raw.items()
    }
    stream = splits.get("train")
    if isinstance(stream, RowStream):
        encode = stream.encode
        learned = [key for key in encoder.label_columns.values() if not _is_set(recipe, key)]
        if learned:
            keys, rows = " and ".join(learned), recipe.data.sample_rows
            encode = partial(_encode_with_labels_of_first_rows, encode=encode, keys=keys, rows=rows)
        splits["train"] = replace(stream, encode=encode, shuffle_buffer=recipe.data.shuffle_buffer)
    # Rows from the cache of datasets were not truncated just now. Saved tokenizers have the truncation of this run.
    tokenizer("", truncation=True, max_length=encoder.max_length(tokenizer))
    return TaskData(
        splits,
        tokenizer,
        encoder,
        info=next(iter(raw.values())).info,
        labels=encoder.labels,
        sequence_labels=encoder.sequence_labels,
        references=encoder.references({name: raw[name] for name in evaluated if name in raw}, splits, locations),
        max_target_length=encoder.max_target_length(tokenizer),
    )


def _encode_with_labels_of_first_rows(
    batch: dict[str, list[Any]], locations: list[Any], *, encode: Callable[..., dict[str, Any]], keys: str, rows: int
) -> dict[str, Any]:
    try:
        return encode(batch, locations)
    except UnknownLabelError as error:
        raise ValueError(
            f"{error} The labels were collected from the first {rows} rows. List all labels in {keys}, or raise "
            "data.sample_rows."
        ) from error
