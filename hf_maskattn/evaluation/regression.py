"""Metric of regression."""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import mean_squared_error


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
