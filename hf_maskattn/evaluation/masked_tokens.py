"""Metric of masked language modeling."""

import datasets
import evaluate
from sklearn.metrics import accuracy_score


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
