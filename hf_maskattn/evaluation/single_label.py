"""Metric of classification with one label for each item."""

import datasets
import evaluate
from sklearn.metrics import accuracy_score, f1_score


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
