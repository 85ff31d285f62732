"""The groups of a recipe: `model` and `data` as dataclasses, and the fields that each group may set."""

import dataclasses
import difflib
import types
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from huggingface_hub.dataclasses import strict, type_validator

from hf_maskattn.data.tag_schemes import TagScheme
from hf_maskattn.recipes.declared_fields import declared_fields

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, TrainingArguments

Task = Literal["text-classification", "token-classification", "fill-mask", "text2text-generation"]
TASKS: tuple[Task, ...] = get_args(Task)

SEQ2SEQ = "seq2seq"
"""The task that is stored as "text2text-generation", the name of a pipeline that transformers 5 does not have any more."""

TextMetric = Literal["text-match", "pronunciation", "translation"]

_ENCODER = ("hf_maskattn.model.configuration_maskattn", "MaskAttnConfig")
_CONFIGS: dict[Task, tuple[str, str]] = {
    "text-classification": _ENCODER,
    "token-classification": _ENCODER,
    "fill-mask": _ENCODER,
    "text2text-generation": ("hf_maskattn.model.configuration_rnnsearch", "RNNSearchConfig"),
}
_ANY_CONFIG = ("transformers.configuration_utils", "PreTrainedConfig")
_TRAINING = ("transformers.training_args", "TrainingArguments")
_GENERATION_TRAINING = ("transformers.training_args_seq2seq", "Seq2SeqTrainingArguments")

_LABELS_COME_FROM = "it comes from the labels of the data"
_TOKENIZER_DECIDES = "it comes from the tokenizer (data.tokenizer, data.vocab_size)"
_VERB_DECIDES = "the command decides: hf-maskattn train, evaluate or predict"
_LOGIN_INSTEAD = "a token does not belong in a file: run `hf auth login`, or set the variable HF_TOKEN"

NOT_IN_A_RECIPE = {
    "model": {
        "vocab_size": _TOKENIZER_DECIDES,
        "source_vocab_size": "source and target have one tokenizer, hence one vocabulary",
        "pad_token_id": _TOKENIZER_DECIDES,
        "bos_token_id": _TOKENIZER_DECIDES,
        "eos_token_id": _TOKENIZER_DECIDES,
        "decoder_start_token_id": _TOKENIZER_DECIDES,
        "max_target_length": "say it as data.max_target_length",
        "use_cache": "it is for those who call the model: generate(use_cache=...)",
        "num_labels": _LABELS_COME_FROM,
        "id2label": _LABELS_COME_FROM,
        "label2id": _LABELS_COME_FROM,
        "tag_scheme": "it is detected in the data; say another one as data.tag_scheme",
    },
    "data": {},
    "training": {
        "hub_token": _LOGIN_INSTEAD,
        "push_to_hub_token": _LOGIN_INSTEAD,
        "hub_always_push": "every save is published anyway, while training waits (training.hub_strategy: every_save)",
        "resume_from_checkpoint": "say it on the command line: --resume",
        "do_train": _VERB_DECIDES,
        "do_eval": _VERB_DECIDES,
        "do_predict": _VERB_DECIDES,
        "local_rank": "the launcher knows it: accelerate launch",
    },
}
"""Keys that a recipe may not set, by group, and why or how else."""

ONLY_FOR = {
    ("model", "problem_type"): ("text-classification",),
    ("data", "text_column"): ("text-classification", "token-classification", "fill-mask"),
    ("data", "tokens_column"): ("token-classification",),
    ("data", "label_column"): ("text-classification", "token-classification"),
    ("data", "labels"): ("text-classification", "token-classification"),
    ("data", "tag_scheme"): ("token-classification",),
    ("data", "mlm_probability"): ("fill-mask",),
    ("data", "source_column"): ("text2text-generation",),
    ("data", "target_column"): ("text2text-generation",),
    ("data", "references_column"): ("text2text-generation",),
    ("data", "max_target_length"): ("text2text-generation",),
    ("data", "metric"): ("text2text-generation",),
}
"""Keys that have a meaning for some tasks only."""

ONLY_FOR_STREAMS = ("shuffle_buffer", "sample_rows")
"""Keys of `data` that have a meaning with `data.streaming` only."""


@strict
@dataclass
class ModelArguments:
    """What model is trained.

    Args:
        task: What the model does; a recipe may say "seq2seq" for "text2text-generation".
        problem_type: Of text classification: one label (the default), several labels, or a number for each text.
        pretrained: Model to fine-tune, a folder or a name on the Hub; it brings its tokenizer. None trains from scratch.
        config: Fields of the configuration of the model, `MaskAttnConfig` or `RNNSearchConfig` by task, that are not left at
            their defaults (or as `pretrained` has them).
    """

    task: Task
    problem_type: Literal["single_label_classification", "multi_label_classification", "regression"] | None = None
    pretrained: str | None = None
    config: dict[str, Any] = field(default_factory=dict)


@strict
@dataclass
class DataArguments:
    """What it is trained on.

    Args:
        source: Built-in corpus, a folder of files, or name of a dataset on the Hub.
        subset: Configuration of that dataset.
        train_file: JSON, JSONL (or NDJSON), CSV, TSV or Parquet file, text files also compressed (.gz, .bz2, .xz, .zst), or a
            pattern such as "data/train-*.parquet", instead of `source`; likewise `validation_file` and `test_file`.
        validation_file: See `train_file`.
        test_file: See `train_file`.
        csv_separator: Character between the cells of CSV files; None means a tab in .tsv files, else a comma.
        train_split: Name of the split to train on; null where there is none, likewise `validation_split` and `test_split`.
        validation_split: Name of the split that finds the best checkpoint.
        test_split: Name of the split that is only scored at the end.
        validation_fraction: Share of the train split to set aside if there is no validation split. Rows whose label would be
            lost from the train split stay in it.
        streaming: Whether the train split is read while training goes on, in flat memory, rather than loaded before. The
            other splits are read whole, into memory. `training.max_steps` tells when to stop: a stream has no end, after
            its last row it begins again in another order.
        shuffle_buffer: Of a stream, rows that are shuffled together; 0 for no shuffling, of the files neither.
        sample_rows: Of a stream, how many of the first rows train the tokenizer and tell the labels.
        text_column: Column with the text; None means "text". For token classification, if there is no column "text" either,
            the words are joined by spaces.
        tokens_column: Column with the list of words, of token classification.
        label_column: Column with the label; None means "label", or "tags" for token classification.
        labels: Names of all labels in the order of their numbers; None takes them from the train split. Whole numbers in the
            data are positions in these names if no name is a whole number itself and no split holds texts. Of tags, as the
            data names them.
        tag_scheme: How tags mark entities: "IOB1", "IOB2", "BIOES", "BILOU", or "none" for tags that stand for themselves,
            such as parts of speech; None detects it in the train split. The model learns the same entities in IOB2.
        source_column: Column with the text to start from, of text-to-text generation.
        target_column: Column with the text to write, or a list of right ones, of which the first is written.
        references_column: Column with all right texts, which scores are for; None means `target_column`.
        tokenizer: Kind of tokenizer to train ("char", "word", "symbols", "bpe", "wordpiece"), or one to load, by folder or
            name.
        vocab_size: Largest vocabulary of a tokenizer that is trained.
        lowercase: Whether a tokenizer that is trained ignores case.
        max_length: Tokens beyond this are cut off, and counted in a warning; None means 512, or what a loaded tokenizer says.
        max_target_length: Likewise for the target of text-to-text generation, and as many are generated at most; None means
            as `max_length`.
        metric: What generated texts are scored by: "text-match", "pronunciation" or "translation".
        mlm_probability: Share of the tokens that are masked, of masked language modeling.
    """

    source: str | None = None
    subset: str | None = None
    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
    csv_separator: str | None = None
    train_split: str | None = "train"
    validation_split: str | None = "validation"
    test_split: str | None = "test"
    validation_fraction: float | int | None = None
    streaming: bool = False
    shuffle_buffer: int = 10_000
    sample_rows: int = 100_000
    text_column: str | None = None
    tokens_column: str = "tokens"
    label_column: str | None = None
    labels: list[str] | None = None
    tag_scheme: TagScheme | None = None
    source_column: str = "source"
    target_column: str = "target"
    references_column: str | None = None
    tokenizer: str | None = None
    vocab_size: int = 8000
    lowercase: bool = False
    max_length: int | None = None
    max_target_length: int | None = None
    metric: TextMetric = "text-match"
    mlm_probability: float | int = 0.15


def config_class(task: Task) -> "type[PreTrainedConfig]":
    """Import the configuration of the model of a task."""
    return _import_class(_CONFIGS[task])


def arguments_class(task: Task) -> "type[TrainingArguments]":
    """Import the arguments of the Trainer of a task."""
    return _import_class(_GENERATION_TRAINING if task == "text2text-generation" else _TRAINING)


def settable_fields(group: str, tasks: Iterable[Task] = TASKS) -> dict[str, Any]:
    """List what a group of a recipe may set.

    Args:
        group: "model", "data" or "training".
        tasks: Tasks, of which a field has a meaning for at least one; what `ONLY_FOR` says comes on top.

    Returns:
        Type of each field, by name; where tasks differ, their union.
    """
    if group == "data":
        kinds = [_field_types(DataArguments)]
    elif group == "training":
        kinds = [_training_fields(task) for task in tasks]
    else:
        kinds = [_field_types(ModelArguments), *(_own_fields(task) for task in tasks)]
    fields: dict[str, Any] = {}
    for kind in kinds:
        for name, annotation in kind.items():
            if name != "config" and name not in NOT_IN_A_RECIPE[group]:
                fields[name] = Union[fields[name], annotation] if name in fields else annotation  # noqa: UP007 (built from values)
    return fields


def _training_fields(task: Task) -> dict[str, Any]:
    own = declared_fields(*_GENERATION_TRAINING) if task == "text2text-generation" else {}
    return {**declared_fields(*_TRAINING), **own}


def _own_fields(task: Task) -> dict[str, Any]:
    inherited = declared_fields(*_ANY_CONFIG)
    return {name: kind for name, kind in declared_fields(*_CONFIGS[task]).items() if name not in inherited}


def _field_types(dataclass_type: type) -> dict[str, Any]:
    return {item.name: item.type for item in dataclasses.fields(dataclass_type)}


def _import_class(place: tuple[str, str]) -> Any:
    module, name = place
    return getattr(import_module(module), name)


_MOST_LISTED = 40
_MOST_SUGGESTED = 3
_MISSPELLED = 0.8
_SHORTENED = 0.4
"""Cutoffs of `difflib`, tried on 100 realistic keys: at 0.7, one in ten suggestions for a misspelling has another meaning."""

_RENAMED = {
    "lr": "learning_rate",
    "warmup_ratio": "warmup_steps",
    "no_cuda": "use_cpu",
    "group_by_length": "train_sampling_strategy",
}
"""What fields are called elsewhere, or were called by earlier versions of transformers."""


def check_key(group: str, key: str, valid: Iterable[str]) -> None:
    """Refuse a key that does not exist.

    Raises:
        ValueError: If it does not; suggests keys that are near, or lists those that there are.
    """
    valid = sorted(valid)
    if key in valid:
        return
    near = [f"{group}.{name}" for name in nearest_keys(key, valid)]
    if near:
        advice = f"did you mean {' or '.join(near)}?"
    elif len(valid) <= _MOST_LISTED:
        advice = f"there are: {', '.join(valid)}."
    else:
        advice = "its keys are the fields of transformers.TrainingArguments."
    raise ValueError(f"{group}.{key} does not exist: {advice}")


def nearest_keys(key: str, valid: Collection[str]) -> list[str]:
    """Suggest keys for one that does not exist.

    Args:
        key: The key that was given.
        valid: The keys that exist.

    Returns:
        The key that replaces it, or at most three keys, the nearest first, that it is a misspelling or a part of.
    """
    written = key.lower().replace("-", "_")
    if _RENAMED.get(written) in valid:
        return [_RENAMED[written]]
    misspelled = difflib.get_close_matches(written, valid, n=1, cutoff=_MISSPELLED)
    words = set(written.split("_"))
    parts = [name for name in valid if words <= set(name.split("_")) or name.startswith(written) or written.startswith(name)]
    return difflib.get_close_matches(written, {*misspelled, *parts}, n=_MOST_SUGGESTED, cutoff=_SHORTENED)


def suggestion(value: str, choices: Iterable[str]) -> str | None:
    """Name the choice that a value is a misspelling of, if there is one."""
    return next(iter(difflib.get_close_matches(value.lower(), list(choices), n=1, cutoff=_MISSPELLED)), None)


def check_value(group: str, key: str, value: Any, annotation: Any) -> None:
    """Refuse a value that a field does not take; whole numbers are taken for floats.

    Args:
        group: Group of the recipe, for the message.
        key: Name of the field.
        value: What was given.
        annotation: Type of the field.

    Raises:
        TypeError: If the value has another type, or is none of the field's choices.
    """
    annotation = _as_written(annotation)
    number = float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    for candidate in (value, number):
        try:
            type_validator(key, candidate, annotation)
            return
        except TypeError:
            continue
    raise TypeError(f"{group}.{key}={value!r}: expected {describe(annotation)}.")


def check_fields(group: str, values: Mapping[str, Any], annotations: Mapping[str, Any]) -> None:
    """Check all keys and values of a group; see `check_key` and `check_value`."""
    for key, value in values.items():
        check_key(group, key, annotations)
        check_value(group, key, value, annotations[key])


def _as_written(annotation: Any) -> Any:
    """Replace an enum by its values: these are what a file can say."""
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return Literal[tuple(member.value for member in annotation)]
    if get_origin(annotation) in (Union, types.UnionType):
        members = get_args(annotation)
        if any(isinstance(member, type) and issubclass(member, Enum) for member in members):
            members = tuple(member for member in members if member is not str)
        return Union[tuple(_as_written(member) for member in members)]  # noqa: UP007 (built from a tuple)
    return annotation


def describe(annotation: Any) -> str:
    """Say in words what a field takes, such as "a whole number or null"."""
    annotation = _as_written(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe(member) for member in get_args(annotation)))
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(annotation))
    if get_origin(annotation) is list:
        return f"a list of {describe(get_args(annotation)[0])}"
    origin = get_origin(annotation) or annotation
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list", dict: "a mapping"}
    if origin is type(None):
        return "null"
    return words.get(origin, getattr(origin, "__name__", str(origin)))


_LEAST = {
    ("data", "max_length"): 1,
    ("data", "max_target_length"): 1,
    # The token that the decoder starts from counts.
    ("training", "generation_max_length"): 2,
    ("training", "generation_num_beams"): 1,
}


def check_lengths(groups: dict[str, dict[str, Any]]) -> None:
    """Refuse lengths that are too small.

    Args:
        groups: Groups of a recipe, as they were set.

    Raises:
        ValueError: Names the key and the value.
    """
    for (group, key), least in _LEAST.items():
        value = groups[group].get(key)
        if value is not None and value < least:
            raise ValueError(f"{group}.{key}={value} must be at least {least}.")


def check_stream(groups: dict[str, dict[str, Any]]) -> None:
    """Refuse what has no meaning with a stream, or only with one.

    Args:
        groups: Groups of a recipe, as they were set.

    Raises:
        ValueError: Names the key and the way out.
    """
    data, training = groups["data"], groups["training"]
    if not data.get("streaming"):
        for key in ONLY_FOR_STREAMS:
            if key in data:
                raise ValueError(f"data.{key} means nothing without data.streaming: remove it, or set data.streaming=true.")
        return
    if (training.get("max_steps") or 0) <= 0:
        raise ValueError(
            "training.max_steps is missing: with data.streaming nobody knows how many rows there are, say when to stop."
        )
    if data.get("validation_fraction") is not None:
        raise ValueError(
            f"data.validation_fraction={data['validation_fraction']} cannot be cut from a stream (data.streaming): give "
            "data.validation_file or data.validation_split, or set data.validation_fraction=null."
        )
    strategy = training.get("train_sampling_strategy", "random")
    if strategy != "random":
        raise ValueError(
            f"training.train_sampling_strategy={strategy} needs all rows at hand, which a stream (data.streaming) has not: "
            "remove it; data.shuffle_buffer=0 leaves the rows in their order."
        )
    for key in ("eval_strategy", "save_strategy", "logging_strategy"):
        if training.get(key) == "epoch":
            raise ValueError(f"training.{key}=epoch never comes: a stream (data.streaming) has no epochs; say steps.")
    if training.get("dataloader_in_order") is False:
        raise ValueError(
            "training.dataloader_in_order=false leaves the order of a stream (data.streaming) to chance, so that it cannot "
            "be resumed: remove it."
        )
    for key, least in (("shuffle_buffer", 0), ("sample_rows", 1)):
        if data.get(key, least) < least:
            raise ValueError(f"data.{key}={data[key]} must be at least {least}.")
