"""Metric of classification with any number of labels for each item."""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score, f1_score


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
