"""The groups of a recipe as dataclasses, `training` with the keys that Trainer does not have, and which keys depend on others.

The docstrings of the fields are the reference that users read: `docs/recipes.md` is generated from them.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from huggingface_hub.dataclasses import strict

from hf_maskattn.data.tag_schemes import TagScheme
from hf_maskattn.tasks import TaskName

TextMetric = Literal["text-match", "pronunciation", "translation"]

_FROM_LABELS = "it is set from the labels of the data"
_FROM_TOKENIZER = "it is set from the tokenizer (data.tokenizer, data.vocab_size)"
_FROM_COMMAND = "the command sets it: hf-maskattn train, evaluate or predict"
_USE_LOGIN = "a token must not be stored in a file. Run `hf auth login`, or set the variable HF_TOKEN"

NOT_IN_A_RECIPE = {
    "model": {
        "vocab_size": _FROM_TOKENIZER,
        "source_vocab_size": "source and target share one tokenizer and one vocabulary",
        "pad_token_id": _FROM_TOKENIZER,
        "bos_token_id": _FROM_TOKENIZER,
        "eos_token_id": _FROM_TOKENIZER,
        "decoder_start_token_id": _FROM_TOKENIZER,
        "max_target_length": "use data.max_target_length",
        "use_cache": "pass it to the model: generate(use_cache=...)",
        "num_labels": _FROM_LABELS,
        "id2label": _FROM_LABELS,
        "label2id": _FROM_LABELS,
        "tag_scheme": "it is detected in the data. Use data.tag_scheme to set it",
        "sequence_label_names": _FROM_LABELS,
    },
    "data": {},
    "teacher": {},
    "tuning": {},
    "training": {
        "hub_token": _USE_LOGIN,
        "push_to_hub_token": _USE_LOGIN,
        "hub_always_push": "every save is published in any case (training.hub_strategy: every_save)",
        "resume_from_checkpoint": "use the option --resume on the command line",
        "do_train": _FROM_COMMAND,
        "do_eval": _FROM_COMMAND,
        "do_predict": _FROM_COMMAND,
        "local_rank": "the launcher sets it: accelerate launch",
    },
}
"""Keys that a recipe must not set, by group, with the reason and the alternative."""

ONLY_FOR_STREAMS = ("shuffle_buffer", "sample_rows")
"""Keys of `data` that need `data.streaming`."""

ONLY_FOR_DISTILLATION = ("unlabeled_file", "unlabeled_source", "unlabeled_split", "augmentation")
"""Keys of `data` that need the group `teacher`, which labels these rows."""

FROM_SCRATCH: dict[str, Any] = {
    "learning_rate": 2e-3,
    "warmup_steps": 0.1,
    "weight_decay": 0.01,
    "per_device_train_batch_size": 32,
    "num_train_epochs": 10,
}
"""Defaults of `training` for models from scratch, which learn nothing with Trainer's own: they are for fine-tuning."""

_MIN_STEPS = 500
"""Measured on 300 rows of TREC-6 and 300 of SNIPS (mean test accuracy of two seeds): 70.9 and 89.2 after 100 steps, 71.6 and
91.3 after 300, 70.6 and 92.2 after 600."""


def default_epochs(steps_per_epoch: int) -> int:
    """Return the number of epochs of a model from scratch: 10, or more until it has 500 steps."""
    return max(FROM_SCRATCH["num_train_epochs"], math.ceil(_MIN_STEPS / steps_per_epoch))


@strict
@dataclass
class ModelArguments:
    """The model to train. All fields of its configuration can be set in this group too."""

    task: TaskName
    """What the model is trained for. `seq2seq` is another name of `text2text-generation`."""

    problem_type: Literal["single_label_classification", "multi_label_classification", "regression"] | None = None
    """Kind of text classification: one label per text, several labels per text, or a number. Null means one label."""

    pretrained: str | None = None
    """Model to fine-tune, as a folder or a name on the Hub. Its tokenizer is used with it. Null trains from random weights."""

    embeddings: str | None = None
    """Pretrained embeddings to start from: a model of transformers, as a folder or a name on the Hub, whose tokenizer is used,
    or a file of word vectors (.txt, .vec or .bin, also with .gz), for word tokenizers. Larger ones are reduced to
    `embedding_size`."""

    embeddings_kind: Literal["input", "static"] = "input"
    """Which embeddings of a model: its input matrix, or what it returns for each token alone, which is computed once and
    cached."""

    freeze_embeddings: bool | float | int = False
    """Whether the embeddings are not trained, or the number of epochs until they are. Needs `embeddings` or `pretrained`."""

    embeddings_learning_rate: float | int | None = None
    """Learning rate of the embeddings. Null means `training.learning_rate`."""

    config: dict[str, Any] = field(default_factory=dict)
    """Fields of the model configuration that the recipe sets (`MaskAttnConfig` or `RNNSearchConfig`, by task)."""


@strict
@dataclass
class DataArguments:
    """The dataset, its columns and the tokenizer."""

    source: str | None = None
    """Dataset to load: a built-in corpus (`cldr-languages`, `cldr-date-fields`, `cldr-dates`), a pronouncing dictionary
    (`.dict`), a folder of files, or a dataset name on the Hub."""

    name: str | None = None
    """Name of the dataset in the model card: any text, or its name on the Hub, such as `user/dataset`, which the card links to.
    Null means the name of `source` or of the file `train_file`, without its folder."""

    subset: str | None = None
    """Configuration name of a dataset on the Hub."""

    train_file: str | None = None
    """File with the train split, used instead of `source`: JSON, JSONL, NDJSON, CSV, TSV or Parquet. Text files may be
    compressed (.gz, .bz2, .xz, .zst). A glob pattern such as `data/train-*.parquet` selects several files."""

    validation_file: str | None = None
    """File or pattern with the validation split, as `train_file`."""

    test_file: str | None = None
    """File or pattern with the test split, as `train_file`."""

    csv_separator: str | None = None
    """Column separator of CSV files. Null means a tab for .tsv files and a comma otherwise."""

    train_split: str | None = "train"
    """Name of the split of `source` to train on. Null if there is none."""

    validation_split: str | None = "validation"
    """Name of the split of `source` that selects the best checkpoint. Null if there is none."""

    test_split: str | None = "test"
    """Name of the split of `source` that is scored once after training. Null if there is none."""

    validation_fraction: float | int | None = None
    """Fraction of the train split to hold out for validation if the data has no validation split. Each label keeps at least
    one row in the train split."""

    streaming: bool = False
    """Whether to read the train split from disk or the network during training, with constant memory, instead of loading it
    first. The other splits are loaded. A stream has no epochs: set `training.max_steps`. After the last row, the stream
    starts again in a different order."""

    shuffle_buffer: int = 10_000
    """Number of rows of a stream that are shuffled together. 0 keeps the order of files and rows."""

    sample_rows: int = 100_000
    """Number of rows at the start of a stream that the tokenizer is trained on and the labels are collected from."""

    text_column: str | None = None
    """Column with the text. Null means `text`. For token classification without such a column, the words are joined with
    spaces."""

    tokens_column: str = "tokens"
    """Column with the list of words, for token classification and joint classification."""

    tags_column: str = "tags"
    """Column with the list of tags, for joint classification, where `label_column` has the label of the text."""

    tags: list[str] | None = None
    """Names of all tags, for joint classification, as `labels` has them for token classification."""

    label_column: str | None = None
    """Column with the label. Null means `label`, or `tags` for token classification."""

    labels: list[str] | None = None
    """Names of all labels, in the order of their ids. Null collects them from the train split. Integers in the data are ids
    into this list, unless a name is itself an integer or a split contains strings. For tags, list them as in the data."""

    tag_scheme: TagScheme | None = None
    """How tags mark entities: IOB1, IOB2, BIOES or BILOU, or `none` for tags without entities, such as part-of-speech tags.
    Null detects the scheme in the train split. The model is always trained on IOB2."""

    source_column: str = "source"
    """Column with the input text, for text-to-text generation."""

    target_column: str = "target"
    """Column with the target text, or with a list of reference texts. The model is trained on the first one."""

    references_column: str | None = None
    """Column with all reference texts that generated text is scored against. Null means `target_column`."""

    tokenizer: str | None = None
    """Kind of tokenizer to train (char, word, symbols, bpe, wordpiece), or a tokenizer to load, as a folder or a name on the
    Hub. Required unless `model.pretrained` is set. Null means the tokenizer of `model.embeddings`."""

    vocabulary: Literal["all", "prune"] = "all"
    """Which tokens of a loaded tokenizer are used: all, or only those that occur in the train split (of a stream, in its first
    `sample_rows` rows), single characters and special tokens."""

    vocab_size: int = 8000
    """Maximum vocabulary size of a tokenizer that is trained."""

    min_frequency: int | None = None
    """How often a word must occur in the train split to be in the vocabulary of a `word` tokenizer, and a pair of pieces to be
    merged by bpe and wordpiece. Rarer words become the unknown token, which is trained on them. Null means 2 for `word`, but 1
    for the others and for text-to-text generation. Not for `char` and `symbols`, which keep every character."""

    unknown_word_dropout: float | int | None = None
    """Alpha of unknown-word dropout: in training, a token that occurs n times in the train split is replaced by the unknown
    token with probability alpha / (alpha + n) (Kiperwasser and Goldberg 2016). 0 replaces none. Null means 0.25 for a `word`
    tokenizer that is trained and 0 for any other."""

    lowercase: bool = False
    """Whether a tokenizer that is trained ignores case."""

    max_length: int | None = None
    """Maximum number of tokens of a text. Longer texts are truncated, with a warning that counts them. Null means the limit
    of a loaded tokenizer, or 512."""

    max_target_length: int | None = None
    """Maximum number of tokens of a target and of a generated text. Null means `max_length`."""

    metric: TextMetric = "text-match"
    """How generated text is scored: text-match (exact match and character error rate), pronunciation (word and phoneme error
    rates) or translation (BLEU and chrF)."""

    mlm_probability: float | int = 0.15
    """Fraction of the tokens to mask, for masked language modeling."""

    unlabeled_file: str | None = None
    """File or pattern with further texts to train on, as `train_file`. They need no labels: only the column with the text is
    read, and only the loss of the teacher is computed. Texts that are also in the validation or test split are removed."""

    unlabeled_source: str | None = None
    """Dataset with further texts to train on, used instead of `unlabeled_file`."""

    unlabeled_split: str = "train"
    """Name of the split of `unlabeled_source`."""

    augmentation: int = 0
    """Number of new texts to derive from each row of the train split, for which only the loss of the teacher is computed: each
    word is masked with probability 0.1, and with probability 0.25 only one to five consecutive words are kept (Tang et al.
    2019, section 3.3, without the replacement of words by part of speech). Equal texts, and texts of the validation or test
    split, are removed."""


@strict
@dataclass
class TeacherArguments:
    """The fine-tuned model that the model is distilled from. Without this group nothing is distilled."""

    model: str
    """Fine-tuned model for the same task, as a folder or a name on the Hub. It is run once over the data; its outputs are kept
    in the cache of Hugging Face. Null removes the group."""

    temperature: float | int = 3.0
    """Temperature of the softmax in the loss `kl`. The loss is multiplied by its square (Hinton et al. 2015)."""

    alpha: float | int = 0.5
    """Weight of the loss of the teacher. The loss of the labels has the weight `1 - alpha`."""

    loss: Literal["kl", "mse"] | None = None
    """Loss of the teacher: `kl` (Kullback-Leibler divergence of the probabilities; of each label for several labels per text)
    or `mse` (mean squared error of the logits). Null means `kl`, or `mse` for regression."""

    batch_size: int = 32
    """Number of texts that the teacher reads at once."""

    max_length: int | None = None
    """Maximum number of tokens that the teacher reads of a text. Null means the limit of its tokenizer, or 512."""

    labels: dict[str, str] | None = None
    """Names of the labels of the model by the names of the teacher, where they differ, such as `{LABEL_0: negative}`. Labels
    are matched by name."""


@strict
@dataclass
class OwnTrainingArguments:
    """The keys of the group `training` that are not fields of `TrainingArguments`."""

    early_stopping_patience: int | None = None
    """Number of evaluations in a row without a better `metric_for_best_model` after which training stops. Needs a validation
    split and `load_best_model_at_end`. Null trains to the end."""

    average_checkpoints: int | None = None
    """Number of last checkpoints, or of all if there are fewer, whose mean weights become the model if they score better on the
    validation split than the best checkpoint (Izmailov et al. 2018). This can help if the learning rate stays high, as with
    `lr_scheduler_type: constant_with_warmup`. Needs a validation split and `load_best_model_at_end`. The default of
    `save_total_limit` is then one more. Null averages none."""

    class_weights: Literal["balanced"] | dict[str, float | int] | None = None
    """Weight of each class in the training loss, by label, or `balanced`: n / (k * n_c) for n labels, n_c of them of class c,
    of k classes in the train split, as in scikit-learn. With several labels per text, (n - n_c) / n_c for the n_c of n texts
    that have a label. Losses of evaluation, and the loss of a teacher, have no weights."""

    rdrop_alpha: float | int = 0
    """R-Drop: each row is trained on twice, with different dropout, and the divergence of the two predictions is added to the
    loss with this weight (Liang et al. 2021, who use 1 to 5). An epoch takes up to twice the time. For one class out of
    several. 0 trains on each row once."""

    seeds: list[int] | None = None
    """Seeds to train one model with each, instead of `seed`, in the folders `seed-0`, `seed-1` ... of `output_dir`. Their
    scores, mean and sample standard deviation are written to `seeds.json`. With `data.validation_fraction` each seed holds
    out other rows."""

    keep_checkpoints: Literal["best_and_last", "all", "none"] | None = None
    """Which checkpoints stay when a run is finished. Without any, it cannot be trained longer. During training
    `save_total_limit` applies. Null means `best_and_last`, or `all` if `save_total_limit` is set."""


OWN_TRAINING_KEYS = tuple(item.name for item in fields(OwnTrainingArguments))
"""Keys of the group `training` that are not passed to `TrainingArguments`."""


@strict
@dataclass
class TuningArguments:
    """The search of `hf-maskattn tune`."""

    trials: int = 10
    """Number of recipes to train and compare by `training.metric_for_best_model` on the validation split."""

    space: dict[str, Any] | None = None
    """Keys to search, as `group.key`, each with a list of values or with a range `{low: 1e-4, high: 1e-2, log: true}`. Two
    integers make a range of integers. Null searches the learning rate, the batch size and the dropout."""
