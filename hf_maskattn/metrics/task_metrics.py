"""Which metric goes with which task, in the form `Trainer` takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import EvalPrediction

from hf_maskattn.metrics import classification as logit_reduction
from hf_maskattn.metrics.classification import (
    MaskedTokenMetric,
    MultiLabelMetric,
    RegressionMetric,
    SingleLabelMetric,
    SpanMetric,
    are_span_tags,
    require_seqeval,
)
from hf_maskattn.model.losses import IGNORED

LOWER_IS_BETTER = frozenset({"loss", "mse", "cer", "wer", "per"})


@dataclass(frozen=True)
class TaskEvaluation:
    """How a task is evaluated.

    Args:
        metric_names: Names of the metrics; the first tells which checkpoint is best.
        compute_metrics: For `Trainer(compute_metrics=...)`: predictions and labels -> name to value.
        preprocess_logits: For `Trainer(preprocess_logits_for_metrics=...)`: logits -> predictions.
        include_for_metrics: For `TrainingArguments(include_for_metrics=...)`: what else `compute_metrics` looks at.
    """

    metric_names: tuple[str, ...]
    compute_metrics: Callable[[EvalPrediction], dict[str, float]]
    preprocess_logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    include_for_metrics: tuple[str, ...] = ()


def evaluation_for(
    task: str, *, problem_type: str | None = None, label_names: Sequence[str] = (), tag_scheme: str | None = None
) -> TaskEvaluation:
    """Find how a task is evaluated.

    Args:
        task: "text-classification", "token-classification" or "fill-mask".
        problem_type: Of text classification: "single_label_classification" (as None),
            "multi_label_classification" or "regression".
        label_names: Of token classification: names of the tags, by id. Tags as "B-DATE" are scored as spans.
        tag_scheme: Of token classification: scheme of the tags of the data; with "none" no tags are scored as spans.

    Returns:
        Metrics that ignore every position labeled -100.

    Raises:
        ValueError: If there is no such task or problem type.
        ImportError: If spans are to be scored and seqeval is not installed.
    """
    if task == "fill-mask":
        return TaskEvaluation(MaskedTokenMetric.names, _flat(MaskedTokenMetric), logit_reduction.most_likely)
    if task == "token-classification":
        names = list(label_names)
        if are_span_tags(names, tag_scheme):
            require_seqeval()
            return TaskEvaluation(SpanMetric.names, _tagging(names), logit_reduction.most_likely)
        return TaskEvaluation(SingleLabelMetric.names, _flat(SingleLabelMetric), logit_reduction.most_likely)
    if task != "text-classification":
        raise ValueError(f"task={task!r} has no metrics: use 'text-classification', 'token-classification' or 'fill-mask'.")
    if problem_type in (None, "single_label_classification"):
        return TaskEvaluation(SingleLabelMetric.names, _flat(SingleLabelMetric), logit_reduction.most_likely)
    if problem_type == "multi_label_classification":
        return TaskEvaluation(MultiLabelMetric.names, _multi_label, logit_reduction.likely_labels)
    if problem_type == "regression":
        return TaskEvaluation(RegressionMetric.names, _regression, logit_reduction.numbers)
    raise ValueError(
        f"problem_type={problem_type!r} has no metrics: use 'single_label_classification', "
        "'multi_label_classification' or 'regression'."
    )


def _flat(metric_class: type) -> Callable[[EvalPrediction], dict[str, float]]:
    """Score every labeled position on its own."""

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        predictions, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
        labeled = _labeled(labels)
        return metric_class(keep_in_memory=True).compute(predictions=predictions[labeled], references=labels[labeled])

    return compute


def _tagging(names: list[str]) -> Callable[[EvalPrediction], dict[str, float]]:
    """Score the tags of each sentence together."""

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        predictions, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
        labeled = _labeled(labels)  # [N, T]
        return SpanMetric(keep_in_memory=True).compute(
            predictions=_named(predictions, labeled, names), references=_named(labels, labeled, names)
        )

    return compute


def _multi_label(prediction: EvalPrediction) -> dict[str, float]:
    labels = np.asarray(prediction.label_ids).astype(np.int64)
    return MultiLabelMetric(keep_in_memory=True).compute(predictions=prediction.predictions, references=labels)


def _regression(prediction: EvalPrediction) -> dict[str, float]:
    predictions, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    return RegressionMetric(keep_in_memory=True).compute(predictions=predictions.ravel(), references=labels.ravel())


def _labeled(labels: np.ndarray) -> np.ndarray:
    labeled = labels != IGNORED
    if not labeled.any():
        raise ValueError(
            f"All {labels.size} labels of this evaluation are {IGNORED} (ignored), there is nothing to score: give "
            "more rows, or for fill-mask a higher data.mlm_probability."
        )
    return labeled


def _named(ids: np.ndarray, labeled: np.ndarray, names: list[str]) -> list[list[str]]:
    return [[names[i] for i in row[keep]] for row, keep in zip(ids, labeled, strict=True)]
