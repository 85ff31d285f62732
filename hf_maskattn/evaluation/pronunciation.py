"""Metric of pronunciations: words written as phonemes."""

import evaluate

from hf_maskattn.evaluation.edit_distance import error_rate
from hf_maskattn.evaluation.text_references import TEXT_FEATURES, comparable_texts


class PronunciationMetric(evaluate.Metric):
    """Word error rate (share of the words that equal no listed pronunciation) and phoneme error rate (to the closest).

    Phonemes stand apart by white space. They are compared in Unicode NFC; case counts. One row is one word.

    Raises:
        ImportError: If jiwer is not installed.
        ValueError: If a row has no reference, or all references are empty.
    """

    names = ("wer", "per")

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__class__.__doc__,
            citation="",
            inputs_description="Predictions are pronunciations, references are lists of the listed pronunciations.",
            features=TEXT_FEATURES,
        )

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        predictions, references = comparable_texts(predictions, references)
        wrong = sum(
            text.split() not in [listed.split() for listed in texts]
            for text, texts in zip(predictions, references, strict=True)
        )
        return {
            "wer": wrong / len(predictions),
            "per": error_rate(predictions, references, unit="word"),
        }
