"""What a task is: the configuration, Auto class, encoder, collator, metrics and pipeline of each `model.task`.

A new task is a new entry of `TASKS`. Classes and functions are import paths and are imported when they are first used, so that
a recipe is checked without importing torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

TaskName = Literal["text-classification", "token-classification", "joint-classification", "fill-mask", "text2text-generation"]


@dataclass(frozen=True)
class ImportPath:
    """A class or function that is imported when it is needed.

    Attributes:
        module: Full name of its module.
        name: Its name in the module.
    """

    module: str
    name: str

    def load(self) -> Any:
        """Import the module and return the class or function."""
        return getattr(import_module(self.module), self.name)


@dataclass(frozen=True)
class Task:
    """A task that models are trained for.

    Attributes:
        name: The task, named after its pipeline.
        head: Suffix of the model classes of this task.
        config_class: Configuration of the models.
        auto_class: Auto class that loads the models; their class where transformers has none.
        encoder: `TaskEncoder` that turns the columns of a dataset into model inputs.
        collator: Data collator.
        metrics: Function that returns the `TaskEvaluation`.
        metric_names: Function that returns the names of all metrics that a recipe may select the best checkpoint by.
        onnx_pipeline: Pipeline that runs an exported ONNX file. None if the models cannot be exported.
        pipeline: Name of the pipeline of transformers that runs the models. None if there is none.
        generates: Whether the models generate text.
        label_column: Default of `data.label_column`; None if the task has no labels.
        model_keys: Keys of the group `model` that only the tasks that list them support.
        data_keys: Keys of the group `data` that only the tasks that list them support.
        training_keys: Keys of the group `training` that only the tasks that list them support.
        recipe_name: Name of the task in messages, which a recipe may use as well as `name`.
        other_names: Names that other libraries use, for suggestions.
    """

    name: TaskName
    head: str
    auto_class: ImportPath
    encoder: ImportPath
    collator: ImportPath
    metrics: ImportPath
    metric_names: ImportPath
    recipe_name: str
    config_class: ImportPath = ImportPath("hf_maskattn.model.configuration_maskattn", "MaskAttnConfig")
    pipeline: str | None = None
    onnx_pipeline: ImportPath | None = None
    generates: bool = False
    label_column: str | None = None
    model_keys: tuple[str, ...] = ()
    data_keys: tuple[str, ...] = ()
    training_keys: tuple[str, ...] = ()
    other_names: tuple[str, ...] = ()


_ENCODERS = "hf_maskattn.training.task_encoders"
_CLASSIFICATION = "hf_maskattn.metrics.classification"
_TAGGING = "hf_maskattn.metrics.tagging"
_TEXT = "hf_maskattn.metrics.text"
_UNLABELED = ("unlabeled_file", "unlabeled_source", "unlabeled_split", "augmentation")

_TASKS = (
    Task(
        name="text-classification",
        recipe_name="text-classification",
        other_names=("sentiment-analysis", "sequence-classification"),
        head="ForSequenceClassification",
        auto_class=ImportPath("transformers", "AutoModelForSequenceClassification"),
        encoder=ImportPath(_ENCODERS, "TextEncoder"),
        collator=ImportPath("transformers", "DataCollatorWithPadding"),
        metrics=ImportPath(_CLASSIFICATION, "text_classification_evaluation"),
        metric_names=ImportPath(_CLASSIFICATION, "text_classification_metric_names"),
        onnx_pipeline=ImportPath("hf_maskattn.onnx.runtime", "OnnxTextClassificationPipeline"),
        pipeline="text-classification",
        label_column="label",
        model_keys=("problem_type",),
        data_keys=("text_column", "label_column", "labels", "unknown_word_dropout", *_UNLABELED),
        training_keys=("class_weights", "rdrop_alpha"),
    ),
    Task(
        name="token-classification",
        recipe_name="token-classification",
        other_names=("ner",),
        head="ForTokenClassification",
        auto_class=ImportPath("transformers", "AutoModelForTokenClassification"),
        encoder=ImportPath(_ENCODERS, "TagEncoder"),
        collator=ImportPath("transformers", "DataCollatorForTokenClassification"),
        metrics=ImportPath(_TAGGING, "token_classification_evaluation"),
        metric_names=ImportPath(_TAGGING, "token_classification_metric_names"),
        onnx_pipeline=ImportPath("hf_maskattn.onnx.runtime", "OnnxTokenClassificationPipeline"),
        pipeline="token-classification",
        label_column="tags",
        data_keys=("text_column", "tokens_column", "label_column", "labels", "tag_scheme", "unknown_word_dropout"),
        training_keys=("class_weights", "rdrop_alpha"),
    ),
    Task(
        name="joint-classification",
        recipe_name="joint-classification",
        other_names=("intent-and-slots", "slot-filling", "joint"),
        head="ForJointClassification",
        auto_class=ImportPath("hf_maskattn.model.modeling_joint", "MaskAttnForJointClassification"),
        encoder=ImportPath(_ENCODERS, "JointEncoder"),
        collator=ImportPath("transformers", "DataCollatorForTokenClassification"),
        metrics=ImportPath(_TAGGING, "joint_classification_evaluation"),
        metric_names=ImportPath(_TAGGING, "joint_classification_metric_names"),
        onnx_pipeline=ImportPath("hf_maskattn.onnx.runtime", "JointClassificationPipeline"),
        pipeline="token-classification",  # of its tags; text-classification is another one
        label_column="label",
        data_keys=(
            *("text_column", "tokens_column", "tags_column", "label_column"),
            *("labels", "tags", "tag_scheme", "unknown_word_dropout"),
        ),
    ),
    Task(
        name="fill-mask",
        recipe_name="fill-mask",
        other_names=("mlm", "masked-lm"),
        head="ForMaskedLM",
        auto_class=ImportPath("transformers", "AutoModelForMaskedLM"),
        encoder=ImportPath(_ENCODERS, "MaskedLMEncoder"),
        collator=ImportPath("hf_maskattn.data.collators", "RowMaskingCollator"),
        metrics=ImportPath(_CLASSIFICATION, "masked_lm_evaluation"),
        metric_names=ImportPath(_CLASSIFICATION, "masked_lm_metric_names"),
        pipeline="fill-mask",
        data_keys=("text_column", "mlm_probability"),
    ),
    Task(
        name="text2text-generation",
        recipe_name="seq2seq",  # transformers 5 has no pipeline text2text-generation any more
        other_names=("translation", "summarization", "text-generation", "text-to-text", "text2text"),
        head="ForConditionalGeneration",
        config_class=ImportPath("hf_maskattn.model.configuration_rnnsearch", "RNNSearchConfig"),
        auto_class=ImportPath("transformers", "AutoModelForSeq2SeqLM"),
        encoder=ImportPath(_ENCODERS, "PairEncoder"),
        collator=ImportPath("hf_maskattn.data.collators", "PairCollator"),
        metrics=ImportPath(_TEXT, "evaluation_for_generation"),
        metric_names=ImportPath(_TEXT, "text_metric_names"),
        generates=True,
        data_keys=("source_column", "target_column", "references_column", "max_target_length", "metric"),
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in _TASKS}
"""The tasks, by name."""

RECIPE_NAMES: dict[str, str] = {task.recipe_name: task.name for task in _TASKS}
"""Names of tasks, by their names in recipes."""


def task_of(architectures: Sequence[str] | None) -> TaskName | None:
    """Return the task of a saved model with some `architectures` in its configuration, or None without a head."""
    for task in _TASKS:
        if any(name.endswith(task.head) for name in architectures or ()):
            return task.name
    return None


def loading_call(task: str | None, name: str, **settings: object) -> str:
    """Return the source of the call that loads a model with transformers.

    Args:
        task: Its task. A task with a pipeline is loaded by the pipeline, any other by its Auto class, and None by `AutoModel`.
        name: Folder or Hub name of the model.
        **settings: Further keyword arguments of the call.

    Returns:
        A Python expression without the prefix `transformers.`.
    """
    values = {key: f'"{value}"' if isinstance(value, str) else repr(value) for key, value in settings.items()}
    more = "".join(f", {key}={value}" for key, value in values.items())
    if task is not None and TASKS[task].pipeline is not None:
        return f'pipeline("{TASKS[task].pipeline}", model="{name}"{more})'
    auto_class = "AutoModel" if task is None else TASKS[task].auto_class.name
    return f'{auto_class}.from_pretrained("{name}"{more})'
