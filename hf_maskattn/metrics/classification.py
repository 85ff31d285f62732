"""Metrics of classification, regression and masked language modeling, and the evaluations that compute them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score, mean_squared_error, precision_recall_fscore_support
from transformers import EvalPrediction

from hf_maskattn.data.tag_decoding import NO_LABEL
from hf_maskattn.data.tag_encoding import split_word_label
from hf_maskattn.metrics.task_metrics import TaskEvaluation
from hf_maskattn.model.losses import IGNORED


class ItemMetric(evaluate.Metric):
    """Base of metrics whose predictions and references have the same type. The description is the docstring of the class."""

    names: tuple[str, ...]
    _inputs: str
    _feature: Any

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__class__.__doc__,
            citation="",
            inputs_description=self._inputs,
            features=datasets.Features({"predictions": self._feature, "references": self._feature}),
        )


class SingleLabelMetric(ItemMetric):
    """Accuracy, and the unweighted mean of the F1 of all classes that occur in references or predictions.

    A class that the model does not have is never predicted: its F1 is 0.

    Tags are scored by words: a word has the prediction of its first token, and a word without a token is an error.
    """

    names = ("accuracy", "macro_f1")
    _inputs = "Predictions and references are class ids."
    _feature = datasets.Value("int64")

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        classes = sorted({*references, *predictions} - {NO_LABEL})
        return {
            "accuracy": float(accuracy_score(references, predictions)),
            "macro_f1": float(f1_score(references, predictions, labels=classes, average="macro", zero_division=0)),
        }


class MaskedTokenMetric(ItemMetric):
    """Fraction of the masked tokens whose original token has the highest score."""

    names = ("masked_accuracy",)
    _inputs = "Predictions and references are token ids, at masked positions only."
    _feature = datasets.Value("int64")

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"masked_accuracy": float(accuracy_score(references, predictions))}


class MultiLabelMetric(ItemMetric):
    """F1 over all decisions (micro) and averaged over labels (macro), and the fraction of items with all labels correct.

    A label that the model does not have is never predicted: its F1 is 0.
    """

    names = ("micro_f1", "macro_f1", "subset_accuracy")
    _inputs = "Predictions and references are 0 or 1 for each label."
    _feature = datasets.List(datasets.Value("int64"))

    def _compute(self, predictions: list[list[int]], references: list[list[int]]) -> dict[str, float]:
        predicted, true = np.asarray(predictions), np.asarray(references)  # [N, num_labels]
        return {
            "micro_f1": float(f1_score(true, predicted, average="micro", zero_division=0)),
            "macro_f1": float(f1_score(true, predicted, average="macro", zero_division=0)),
            "subset_accuracy": float(accuracy_score(true, predicted)),
        }


class RegressionMetric(ItemMetric):
    """Mean squared error, and Pearson correlation (0 if predictions or references are constant, where it is undefined)."""

    names = ("mse", "pearson")
    _inputs = "Predictions and references are numbers."
    _feature = datasets.Value("float64")

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        is_constant = np.ptp(predictions) == 0 or np.ptp(references) == 0
        return {
            "mse": float(mean_squared_error(references, predictions)),
            "pearson": 0.0 if is_constant else float(np.corrcoef(predictions, references)[0, 1]),
        }


_TEXT_CLASSIFICATION: dict[str | None, Any] = {
    None: SingleLabelMetric,
    "single_label_classification": SingleLabelMetric,
    "multi_label_classification": MultiLabelMetric,
    "regression": RegressionMetric,
}
"""Metric of text classification, by problem type."""


def text_classification_evaluation(*, problem_type: str | None = None, **_: object) -> TaskEvaluation:
    """Return the evaluation of text classification. See `evaluation_for`."""
    names = text_classification_metric_names(problem_type=problem_type)
    if problem_type == "multi_label_classification":
        return TaskEvaluation(names, _score_label_sets, predict_label_set, score_predictions=label_set_scores)
    if problem_type == "regression":
        return TaskEvaluation(names, _score_values, predict_value)
    score = partial(score_positions, metric_class=SingleLabelMetric)
    return TaskEvaluation(names, score, predict_class, score_predictions=class_scores)


def text_classification_metric_names(*, problem_type: str | None = None, **_: object) -> tuple[str, ...]:
    """Return the names of the metrics of text classification."""
    if problem_type not in _TEXT_CLASSIFICATION:
        names = [name for name in _TEXT_CLASSIFICATION if name]
        raise ValueError(f"problem_type must be one of {', '.join(names)}, got {problem_type!r}.")
    return _TEXT_CLASSIFICATION[problem_type].names


def masked_lm_evaluation(**_: object) -> TaskEvaluation:
    """Return the evaluation of masked language modeling."""
    return TaskEvaluation(MaskedTokenMetric.names, partial(score_positions, metric_class=MaskedTokenMetric), predict_class)


def masked_lm_metric_names(**_: object) -> tuple[str, ...]:
    """Return the names of the metrics of masked language modeling."""
    return MaskedTokenMetric.names


def predict_class(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the class with the highest logit: `[..., num_labels]` -> `[...]`, int."""
    return logits.argmax(dim=-1)


def predict_label_set(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return all labels with a probability above 0.5: `[B, num_labels]` -> `[B, num_labels]`, 0 or 1."""
    return (logits > 0).long()


def predict_value(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return regression outputs in float32, whatever the training precision."""
    return logits.float()


def class_scores(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the probabilities of the predicted class and of the label: `[B, num_labels]` -> `[B, 2]`, float32.

    A label that the model does not have has the probability 0.
    """
    probabilities = logits.float().softmax(dim=-1)
    is_known = (labels >= 0) & (labels < logits.shape[-1])
    label_scores = probabilities.gather(-1, labels.where(is_known, 0)[:, None])[:, 0] * is_known
    return torch.stack([probabilities.amax(dim=-1), label_scores], dim=-1)


def label_set_scores(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the probability of each label: `[B, num_labels]`, float32."""
    return logits.float().sigmoid()


def score_by_class(labels: np.ndarray, predictions: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Score each class.

    Args:
        labels: `[N]`, ids of classes; or `[N, C]`, 0 or 1.
        predictions: Likewise.
        names: Names of the classes by id.

    Returns:
        `precision`, `recall`, `f1` and `support` (number of labels) by name. A ratio without a denominator is 0.
    """
    columns = precision_recall_fscore_support(labels, predictions, labels=range(len(names)), zero_division=0)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    keys = ("precision", "recall", "f1", "support")
    return {name: dict(zip(keys, row, strict=True)) for name, row in zip(names, rows, strict=True)}


def score_positions(prediction: EvalPrediction, *, metric_class: type, num_labels: int = 0) -> dict[str, float]:
    """Score each labeled position separately. Labels from `num_labels` on are those of words without a token of their own."""
    predictions, labels, is_labeled = find_labeled(prediction)
    references = labels[is_labeled]
    if num_labels:
        references, _ = split_word_label(references, num_labels)
    return metric_class(keep_in_memory=True).compute(predictions=predictions[is_labeled], references=references)


def _score_label_sets(prediction: EvalPrediction) -> dict[str, float]:
    labels = np.asarray(prediction.label_ids).astype(np.int64)
    # The last columns may be labels that the model does not have and does not predict.
    predictions = np.zeros_like(labels)
    predictions[:, : prediction.predictions.shape[1]] = prediction.predictions
    return MultiLabelMetric(keep_in_memory=True).compute(predictions=predictions, references=labels)


def _score_values(prediction: EvalPrediction) -> dict[str, float]:
    predictions, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    return RegressionMetric(keep_in_memory=True).compute(predictions=predictions.ravel(), references=labels.ravel())


def find_labeled(prediction: EvalPrediction) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return predictions, labels, and which labels are not -100."""
    predictions, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    is_labeled = labels != IGNORED
    if not is_labeled.any():
        raise ValueError(
            f"The evaluation must have at least one label other than {IGNORED}, got none among {labels.size}. Add rows, or "
            "raise data.mlm_probability for fill-mask."
        )
    return predictions, labels, is_labeled


def prior_loss(labels: np.ndarray, problem_type: str | None, smoothing: float = 0.0) -> float:
    """Return the smallest loss of predictions that do not depend on the input.

    Args:
        labels: For a single label `[N]`, int, where -100 is ignored; for several labels `[N, C]`, 0 or 1; for regression `[N]`,
            float.
        problem_type: `problem_type` of the configuration. None for a single-label task.
        smoothing: Label smoothing of a single-label task.

    Returns:
        The entropy of the labels in nats (for several labels the mean over them), or the variance of the numbers.
    """
    if problem_type == "regression":
        return float(labels.var())
    if problem_type == "multi_label_classification":
        frequencies = np.stack([labels.mean(0), 1 - labels.mean(0)])  # [2, C]
        return float(_entropy(frequencies).mean())
    counts = np.bincount(labels[labels != IGNORED])
    frequencies = (1 - smoothing) * counts / counts.sum() + smoothing / len(counts)  # [C]
    return float(_entropy(frequencies))


def _entropy(frequencies: np.ndarray) -> np.ndarray:
    """Return the entropy over the first axis."""
    logarithms = np.log(frequencies, where=frequencies > 0, out=np.zeros_like(frequencies))
    return -(frequencies * logarithms).sum(0)
