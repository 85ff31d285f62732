"""Selects the metrics of a task, in the form that `Trainer` and `Seq2SeqTrainer` expect."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction, PreTrainedTokenizerBase

from hf_maskattn.metrics.classification import (
    MaskedTokenMetric,
    MultiLabelMetric,
    RegressionMetric,
    SingleLabelMetric,
    SpanMetric,
    are_span_tags,
    require_seqeval,
)
from hf_maskattn.metrics.text import (
    PronunciationMetric,
    TextMatchMetric,
    TranslationMetric,
    decode_texts,
    require_jiwer,
    require_sacrebleu,
)
from hf_maskattn.model.losses import IGNORED
from hf_maskattn.tasks import TASKS

LOWER_IS_BETTER = frozenset({"loss", "mse", "cer", "wer", "per"})

_TEXT_CLASSIFICATION: dict[str | None, Any] = {
    None: SingleLabelMetric,
    "single_label_classification": SingleLabelMetric,
    "multi_label_classification": MultiLabelMetric,
    "regression": RegressionMetric,
}
"""Metric of text classification, by problem type."""

_TEXT_METRICS: dict[str, tuple[Any, Callable[[], None]]] = {
    "text-match": (TextMatchMetric, require_jiwer),
    "pronunciation": (PronunciationMetric, require_jiwer),
    "translation": (TranslationMetric, require_sacrebleu),
}

_RowIds = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids of a source, and labels of its row."""


@dataclass(frozen=True)
class TaskEvaluation:
    """Evaluation of a task.

    Args:
        metric_names: Names of the metrics; the first one selects the best checkpoint.
        compute_metrics: For `Trainer(compute_metrics=...)`: predictions and labels -> name to value.
        preprocess_logits: For `Trainer(preprocess_logits_for_metrics=...)`: logits -> predictions.
        include_for_metrics: For `TrainingArguments(include_for_metrics=...)`: further inputs of `compute_metrics`.
    """

    metric_names: tuple[str, ...]
    compute_metrics: Callable[[EvalPrediction], dict[str, float]]
    preprocess_logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    include_for_metrics: tuple[str, ...] = ()


def evaluation_for(
    task: str, *, problem_type: str | None = None, label_names: Sequence[str] = (), tag_scheme: str | None = None
) -> TaskEvaluation:
    """Return the evaluation of a task.

    Args:
        task: "text-classification", "token-classification" or "fill-mask".
        problem_type: For text classification: "single_label_classification" (the same as None),
            "multi_label_classification" or "regression".
        label_names: For token classification: tags by id. Tags such as "B-DATE" are scored as spans.
        tag_scheme: For token classification: scheme of the tags of the data. With "none" no tags are scored as spans.

    Returns:
        Metrics that ignore positions with the label -100.

    Raises:
        ValueError: The task or problem type does not exist.
        ImportError: Tags are scored as spans, but seqeval is not installed.
    """
    if task not in TASKS or TASKS[task].generates:
        names = [name for name, known in TASKS.items() if not known.generates]
        raise ValueError(f"task must be one of {', '.join(names)}, got {task!r}.")
    return TASKS[task].metrics.load()(problem_type=problem_type, label_names=label_names, tag_scheme=tag_scheme)


def text_classification_evaluation(*, problem_type: str | None = None, **_: object) -> TaskEvaluation:
    """Return the evaluation of text classification. See `evaluation_for`."""
    names = text_classification_metric_names(problem_type=problem_type)
    if problem_type == "multi_label_classification":
        return TaskEvaluation(names, _score_label_sets, predict_label_set)
    if problem_type == "regression":
        return TaskEvaluation(names, _score_values, predict_value)
    return TaskEvaluation(names, partial(_score_positions, metric_class=SingleLabelMetric), predict_class)


def text_classification_metric_names(*, problem_type: str | None = None, **_: object) -> tuple[str, ...]:
    """Return the names of the metrics of text classification."""
    if problem_type not in _TEXT_CLASSIFICATION:
        names = [name for name in _TEXT_CLASSIFICATION if name]
        raise ValueError(f"problem_type must be one of {', '.join(names)}, got {problem_type!r}.")
    return _TEXT_CLASSIFICATION[problem_type].names


def token_classification_evaluation(
    *, label_names: Sequence[str] = (), tag_scheme: str | None = None, **_: object
) -> TaskEvaluation:
    """Return the evaluation of token classification. See `evaluation_for`."""
    tags = list(label_names)
    if are_span_tags(tags, tag_scheme):
        require_seqeval()
        return TaskEvaluation(SpanMetric.names, partial(_score_spans, tags=tags), predict_class)
    return TaskEvaluation(SingleLabelMetric.names, partial(_score_positions, metric_class=SingleLabelMetric), predict_class)


def token_classification_metric_names(**_: object) -> tuple[str, ...]:
    """Return the names of all metrics of token classification. The tags determine which of them are computed."""
    return tuple(dict.fromkeys((*SpanMetric.names, *SingleLabelMetric.names)))


def masked_lm_evaluation(**_: object) -> TaskEvaluation:
    """Return the evaluation of masked language modeling."""
    return TaskEvaluation(MaskedTokenMetric.names, partial(_score_positions, metric_class=MaskedTokenMetric), predict_class)


def masked_lm_metric_names(**_: object) -> tuple[str, ...]:
    """Return the names of the metrics of masked language modeling."""
    return MaskedTokenMetric.names


def evaluation_for_generation(
    metric: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    references: Mapping[_RowIds, list[str]] | None = None,
) -> TaskEvaluation:
    """Return the evaluation of generated texts.

    For `Seq2SeqTrainer` with `predict_with_generate=True` and the `include_for_metrics` of the result.

    Args:
        metric: "text-match" (exact match and CER), "pronunciation" (word and phoneme error rate) or "translation" (BLEU and
            chrF).
        tokenizer: Tokenizer of the model. Special tokens are removed from texts, except for the unknown token.
        references: Reference texts by the token ids of the source and the labels of a row, from `collect_references`. `None`
            decodes the labels instead, which may be truncated or have unknown tokens that a prediction then matches.

    Returns:
        The evaluation; rows may come in any order.

    Raises:
        ValueError: The metric does not exist.
        ImportError: A package that the metric requires is not installed.
    """
    if metric not in _TEXT_METRICS:
        raise ValueError(f"metric must be one of {', '.join(_TEXT_METRICS)}, got {metric!r}.")
    metric_class, require_package = _TEXT_METRICS[metric]
    require_package()
    # Trainer pads sources and labels with either of these.
    padding = {tokenizer.pad_token_id, IGNORED}
    references_of_row = None
    if references is not None:
        references_of_row = {
            (_exclude(source, padding), _exclude(labels, padding)): texts for (source, labels), texts in references.items()
        }

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        predicted_texts = decode_texts(tokenizer, prediction.predictions, excluded={IGNORED})
        if references_of_row is None:
            reference_texts = [[text] for text in decode_texts(tokenizer, prediction.label_ids, excluded={IGNORED})]
        else:
            rows = zip(_inputs(prediction), prediction.label_ids, strict=True)
            reference_texts = [
                _look_up(references_of_row, _exclude(source, padding), _exclude(labels, padding)) for source, labels in rows
            ]
        return metric_class(keep_in_memory=True).compute(predictions=predicted_texts, references=reference_texts)

    include_for_metrics = () if references is None else ("inputs",)
    return TaskEvaluation(metric_class.names, compute, require_generated_ids, include_for_metrics)


def text_metric_names(*, metric: str, **_: object) -> tuple[str, ...]:
    """Return the names of the values of a text metric; the first one selects the best checkpoint."""
    return _TEXT_METRICS[metric][0].names


def predict_class(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the class with the highest logit: `[..., num_labels]` -> `[...]`, int."""
    return logits.argmax(dim=-1)


def predict_label_set(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return all labels with a probability above 0.5: `[B, num_labels]` -> `[B, num_labels]`, 0 or 1."""
    return (logits > 0).long()


def predict_value(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return regression outputs in float32, whatever the training precision."""
    return logits.float()


def require_generated_ids(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return generated ids unchanged: `[B, T]` -> `[B, T]`.

    Raises:
        ValueError: They are logits, because nothing was generated.
    """
    if not isinstance(ids, torch.Tensor) or ids.is_floating_point():
        raise ValueError("Text metrics require generated texts. Set training.predict_with_generate: true.")
    return ids


def _score_positions(prediction: EvalPrediction, *, metric_class: type) -> dict[str, float]:
    """Score each labeled position separately."""
    predictions, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    is_labeled = _is_labeled(labels)
    return metric_class(keep_in_memory=True).compute(predictions=predictions[is_labeled], references=labels[is_labeled])


def _score_spans(prediction: EvalPrediction, *, tags: list[str]) -> dict[str, float]:
    """Score the tags of each sentence together."""
    predictions, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    is_labeled = _is_labeled(labels)  # [N, T]
    return SpanMetric(keep_in_memory=True).compute(
        predictions=_tags_of_ids(predictions, is_labeled, tags), references=_tags_of_ids(labels, is_labeled, tags)
    )


def _score_label_sets(prediction: EvalPrediction) -> dict[str, float]:
    labels = np.asarray(prediction.label_ids).astype(np.int64)
    return MultiLabelMetric(keep_in_memory=True).compute(predictions=prediction.predictions, references=labels)


def _score_values(prediction: EvalPrediction) -> dict[str, float]:
    predictions, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    return RegressionMetric(keep_in_memory=True).compute(predictions=predictions.ravel(), references=labels.ravel())


def _is_labeled(labels: np.ndarray) -> np.ndarray:
    is_labeled = labels != IGNORED
    if not is_labeled.any():
        raise ValueError(
            f"The evaluation must have at least one label other than {IGNORED}, got none among {labels.size}. Add rows, or "
            "raise data.mlm_probability for fill-mask."
        )
    return is_labeled


def _tags_of_ids(ids: np.ndarray, is_labeled: np.ndarray, tags: list[str]) -> list[list[str]]:
    return [[tags[i] for i in row[is_kept]] for row, is_kept in zip(ids, is_labeled, strict=True)]


def _exclude(ids: np.ndarray | tuple[int, ...], excluded: set[int]) -> tuple[int, ...]:
    return tuple(int(number) for number in ids if int(number) not in excluded)


def _inputs(prediction: EvalPrediction) -> np.ndarray:
    if prediction.inputs is None:
        raise ValueError('References are looked up by source and labels. Set training.include_for_metrics: ["inputs"].')
    return prediction.inputs


def _look_up(references: dict[_RowIds, list[str]], source: tuple[int, ...], labels: tuple[int, ...]) -> list[str]:
    if (source, labels) not in references:
        raise ValueError(
            f"references must contain all rows, got none for the source ids {source[:10]} and the labels {labels[:10]}. "
            "Collect them from the evaluated rows with collect_references."
        )
    return references[source, labels]
