"""Metrics of classification, regression, masked language modeling and tagging."""

from importlib.util import find_spec

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score, f1_score, mean_squared_error

from hf_maskattn.model.remote_code import install_command


class SingleLabelMetric(evaluate.Metric):
    """Accuracy, and the unweighted mean of the F1 of all classes that occur."""

    names = ("accuracy", "macro_f1")

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__class__.__doc__,
            citation="",
            inputs_description="Predictions and references are class ids.",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {
            "accuracy": float(accuracy_score(references, predictions)),
            "macro_f1": float(f1_score(references, predictions, average="macro", zero_division=0)),
        }


class MaskedTokenMetric(evaluate.Metric):
    """Fraction of the masked tokens whose original token has the highest score."""

    names = ("masked_accuracy",)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__class__.__doc__,
            citation="",
            inputs_description="Predictions and references are token ids, at masked positions only.",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"masked_accuracy": float(accuracy_score(references, predictions))}


class MultiLabelMetric(evaluate.Metric):
    """F1 over all decisions (micro) and averaged over labels (macro), and the fraction of items with all labels correct."""

    names = ("micro_f1", "macro_f1", "subset_accuracy")

    def _info(self) -> evaluate.MetricInfo:
        labels = datasets.List(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description=self.__class__.__doc__,
            citation="",
            inputs_description="Predictions and references are 0 or 1 for each label.",
            features=datasets.Features({"predictions": labels, "references": labels}),
        )

    def _compute(self, predictions: list[list[int]], references: list[list[int]]) -> dict[str, float]:
        predicted, true = np.asarray(predictions), np.asarray(references)  # [N, num_labels]
        return {
            "micro_f1": float(f1_score(true, predicted, average="micro", zero_division=0)),
            "macro_f1": float(f1_score(true, predicted, average="macro", zero_division=0)),
            "subset_accuracy": float(accuracy_score(true, predicted)),
        }


class RegressionMetric(evaluate.Metric):
    """Mean squared error, and Pearson correlation (0 if predictions or references are constant, where it is undefined)."""

    names = ("mse", "pearson")

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__class__.__doc__,
            citation="",
            inputs_description="Predictions and references are numbers.",
            features=datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}),
        )

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        is_constant = np.ptp(predictions) == 0 or np.ptp(references) == 0
        return {
            "mse": float(mean_squared_error(references, predictions)),
            "pearson": 0.0 if is_constant else float(np.corrcoef(predictions, references)[0, 1]),
        }


SPAN_PREFIXES = ("B-", "I-", "E-", "S-", "L-", "U-")


def are_span_tags(names: list[str], tag_scheme: str | None = None) -> bool:
    """Return whether tags mark spans, such as "B-DATE", "I-DATE" and "O", unlike parts of speech.

    Args:
        names: All tags.
        tag_scheme: `tag_scheme` of the model configuration, if it has one.
    """
    if tag_scheme == "none":
        return False
    return any(name != "O" for name in names) and all(name == "O" or name.startswith(SPAN_PREFIXES) for name in names)


def require_seqeval() -> None:
    """Check before training, rather than after the first epoch, that spans can be scored.

    Raises:
        ImportError: seqeval is not installed.
    """
    if find_spec("seqeval") is None:
        raise ImportError(f"Span metrics require seqeval, which is not installed: {install_command('examples')}")


class SpanMetric(evaluate.Metric):
    """Precision, recall and F1 of spans (type and both boundaries must match), and tag accuracy.

    Source: the CoNLL-2000 evaluation, as computed by seqeval.

    Raises:
        ImportError: seqeval is not installed.
    """

    names = ("f1", "precision", "recall", "accuracy")

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.List(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=self.__class__.__doc__,
            citation="",
            inputs_description="Predictions and references are the tags of each sentence.",
            features=datasets.Features({"predictions": tags, "references": tags}),
        )

    def _compute(self, predictions: list[list[str]], references: list[list[str]]) -> dict[str, float]:
        require_seqeval()
        from seqeval.metrics.sequence_labeling import accuracy_score, precision_recall_fscore_support

        precision, recall, f1, _ = precision_recall_fscore_support(references, predictions, average="micro", zero_division=0)
        return {
            "f1": float(f1),
            "precision": float(precision),
            "recall": float(recall),
            "accuracy": float(accuracy_score(references, predictions)),
        }
