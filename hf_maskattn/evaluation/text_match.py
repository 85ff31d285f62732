"""Metric of texts that are right or wrong as a whole."""

import evaluate

from hf_maskattn.evaluation.edit_distance import error_rate
from hf_maskattn.evaluation.text_references import TEXT_FEATURES, comparable_texts


class TextMatchMetric(evaluate.Metric):
    """Share of the texts that equal a reference, and character error rate against the closest reference.

    Texts are compared in Unicode NFC, without white space at their ends; case counts.

    Raises:
        ImportError: If jiwer is not installed.
        ValueError: If a row has no reference, or all references are empty.
    """

    names = ("exact_match", "cer")

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__class__.__doc__,
            citation="",
            inputs_description="Predictions are texts, references are lists of right texts.",
            features=TEXT_FEATURES,
        )

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        predictions, references = comparable_texts(predictions, references)
        right = sum(text in texts for text, texts in zip(predictions, references, strict=True))
        return {
            "exact_match": right / len(predictions),
            "cer": error_rate(predictions, references, unit="character"),
        }
