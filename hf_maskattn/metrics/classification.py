"""Metric of classification with one label for each item."""

from importlib.util import find_spec

import datasets
import evaluate
import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score, mean_squared_error

from hf_maskattn.model.remote_code import install_command


class SingleLabelMetric(evaluate.Metric):
    """Accuracy, and the F1 of each class averaged over the classes that occur, so that rare ones count as much."""

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


def most_likely(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Take the class with the highest logit: `[..., num_labels]` -> `[...]`, int."""
    return logits.argmax(dim=-1)


def likely_labels(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Take every label with a probability above one half: `[B, num_labels]` -> `[B, num_labels]`, 0 or 1."""
    return (logits > 0).long()


def numbers(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Take regression outputs as they are, in fp32 whatever the training precision."""
    return logits.float()


def generated_ids(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Take the ids that `generate()` wrote as they are: `[B, T]` -> `[B, T]`.

    Raises:
        ValueError: If they are logits, because nothing was generated.
    """
    if not isinstance(ids, torch.Tensor) or ids.is_floating_point():
        raise ValueError("Texts are scored as they are generated: set training.predict_with_generate: true.")
    return ids


class MaskedTokenMetric(evaluate.Metric):
    """Share of the masked tokens for which the right token has the highest score."""

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
    """F1 over all decisions (micro) and averaged over labels (macro), and the share of items with every label right."""

    names = ("micro_f1", "macro_f1", "subset_accuracy")

    def _info(self) -> evaluate.MetricInfo:
        labels = datasets.List(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description=self.__class__.__doc__,
            citation="",
            inputs_description="Predictions and references are one 0 or 1 for each label.",
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
    """Mean squared error, and Pearson correlation (0 if either side is constant, where it is undefined)."""

    names = ("mse", "pearson")

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__class__.__doc__,
            citation="",
            inputs_description="Predictions and references are numbers.",
            features=datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}),
        )

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        constant = np.ptp(predictions) == 0 or np.ptp(references) == 0
        return {
            "mse": float(mean_squared_error(references, predictions)),
            "pearson": 0.0 if constant else float(np.corrcoef(predictions, references)[0, 1]),
        }


SPAN_PREFIXES = ("B-", "I-", "E-", "S-", "L-", "U-")


def are_span_tags(names: list[str], tag_scheme: str | None = None) -> bool:
    """Tell whether tags mark spans, as "B-DATE", "I-DATE", "O" do, and parts of speech do not.

    Args:
        names: All tags.
        tag_scheme: Scheme that the configuration of a model names, if it does.
    """
    if tag_scheme == "none":
        return False
    return any(name != "O" for name in names) and all(name == "O" or name.startswith(SPAN_PREFIXES) for name in names)


def require_seqeval() -> None:
    """Find out before a training, not after its first epoch, whether spans can be scored.

    Raises:
        ImportError: If seqeval is not installed.
    """
    if find_spec("seqeval") is None:
        raise ImportError(f"Span metrics need seqeval, which is not installed: {install_command('examples')}")


class SpanMetric(evaluate.Metric):
    """Precision, recall and F1 of whole spans (a span counts if its ends and its type are right), and tag accuracy.

    Source: the CoNLL-2000 evaluation, as computed by seqeval.

    Raises:
        ImportError: If seqeval is not installed.
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
