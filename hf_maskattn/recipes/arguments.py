"""The groups of a recipe: `model` and `data` as dataclasses, and the fields that each group may set."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig, TrainingArguments

from hf_maskattn.model.configuration_maskattn import MaskAttnConfig

Task = Literal["text-classification", "token-classification", "fill-mask"]

_LABELS_COME_FROM = "it comes from the labels of the data"
_TOKENIZER_DECIDES = "it comes from the tokenizer (data.tokenizer, data.vocab_size)"
_VERB_DECIDES = "the command decides: hf-maskattn train, evaluate or predict"
_LOGIN_INSTEAD = "a token does not belong in a file: run `hf auth login`, or set the variable HF_TOKEN"

NOT_IN_A_RECIPE = {
    "model": {
        "vocab_size": _TOKENIZER_DECIDES,
        "pad_token_id": _TOKENIZER_DECIDES,
        "num_labels": _LABELS_COME_FROM,
        "id2label": _LABELS_COME_FROM,
        "label2id": _LABELS_COME_FROM,
    },
    "data": {},
    "training": {
        "hub_token": _LOGIN_INSTEAD,
        "push_to_hub_token": _LOGIN_INSTEAD,
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
    ("data", "tokens_column"): ("token-classification",),
    ("data", "label_column"): ("text-classification", "token-classification"),
    ("data", "labels"): ("text-classification", "token-classification"),
    ("data", "mlm_probability"): ("fill-mask",),
}
"""Keys that have a meaning for some tasks only."""

ONLY_FOR_STREAMS = ("shuffle_buffer", "sample_rows")
"""Keys of `data` that have a meaning with `data.streaming` only."""


@strict
@dataclass
class ModelArguments:
    """What model is trained.

    Args:
        task: What the model does.
        problem_type: Of text classification: one label (the default), several labels, or a number for each text.
        pretrained: Model to fine-tune, a folder or a name on the Hub; it brings its tokenizer. None trains from scratch.
        config: Fields of `MaskAttnConfig` that are not left at their defaults (or as `pretrained` has them).
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
        source: Built-in corpus, or name of a dataset on the Hub.
        subset: Configuration of that dataset.
        train_file: JSONL, CSV or Parquet file, or a pattern such as "data/train-*.parquet", instead of `source`; likewise
            `validation_file` and `test_file`.
        validation_file: See `train_file`.
        test_file: See `train_file`.
        train_split: Name of the split to train on; null where there is none, likewise `validation_split` and `test_split`.
        validation_split: Name of the split that finds the best checkpoint.
        test_split: Name of the split that is only scored at the end.
        validation_fraction: Share of the train split to set aside if there is no validation split.
        streaming: Whether the train split is read while training goes on, in flat memory, rather than loaded before. The
            other splits are read whole, into memory. `training.max_steps` tells when to stop: a stream has no end, after
            its last row it begins again in another order.
        shuffle_buffer: Of a stream, rows that are shuffled together; 0 for no shuffling, of the files neither.
        sample_rows: Of a stream, how many of the first rows train the tokenizer and tell the labels.
        text_column: Column with the text; None means "text". For token classification, if there is no column "text" either,
            the words are joined by spaces.
        tokens_column: Column with the list of words, of token classification.
        label_column: Column with the label; None means "label", or "tags" for token classification.
        labels: Names of all labels in the order of their numbers; None takes them from the train split.
        tokenizer: Kind of tokenizer to train ("char", "word", "bpe", "wordpiece"), or one to load, by folder or name.
        vocab_size: Largest vocabulary of a tokenizer that is trained.
        lowercase: Whether a tokenizer that is trained ignores case.
        max_length: Tokens beyond this are cut off; None means 512, or what a loaded tokenizer says.
        mlm_probability: Share of the tokens that are masked, of masked language modeling.
    """

    source: str | None = None
    subset: str | None = None
    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
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
    tokenizer: str | None = None
    vocab_size: int = 8000
    lowercase: bool = False
    max_length: int | None = None
    mlm_probability: float | int = 0.15


def settable_fields(group: str) -> dict[str, Any]:
    """List what a group of a recipe may set.

    Args:
        group: "model", "data" or "training".

    Returns:
        Type of each field, by name.
    """
    if group == "model":
        inherited = _field_types(PreTrainedConfig)
        own = {name: kind for name, kind in _field_types(MaskAttnConfig).items() if name not in inherited}
        fields = _field_types(ModelArguments) | own
        del fields["config"]
    else:
        fields = _field_types(DataArguments if group == "data" else TrainingArguments)
    return {name: kind for name, kind in fields.items() if name not in NOT_IN_A_RECIPE[group]}


def _field_types(dataclass_type: type) -> dict[str, Any]:
    return {item.name: item.type for item in dataclasses.fields(dataclass_type)}
