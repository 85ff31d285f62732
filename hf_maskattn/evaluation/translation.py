"""Metric of translations; the only file that imports sacrebleu."""

from importlib.util import find_spec
from itertools import zip_longest

import evaluate

from hf_maskattn.evaluation.text_references import TEXT_FEATURES, comparable_texts
from hf_maskattn.model.code_version import install_command


def require_sacrebleu() -> None:
    """Find out before a training, not after its first epoch, whether translations can be scored.

    Raises:
        ImportError: If sacrebleu is not installed.
    """
    if find_spec("sacrebleu") is None:
        raise ImportError(f"BLEU and chrF need sacrebleu, which is not installed: {install_command('examples')}")


class TranslationMetric(evaluate.Metric):
    """BLEU and chrF of all rows together, from 0 to 100, by sacrebleu with its defaults.

    BLEU: tokens of "13a", case counts, exponential smoothing. chrF: characters up to order 6, no words, beta 2. Texts are
    compared in Unicode NFC. Languages written without spaces between words need chrF: "13a" does not cut them.

    Source: Post 2018, https://aclanthology.org/W18-6319; Popović 2015, https://aclanthology.org/W15-3049

    Raises:
        ImportError: If sacrebleu is not installed.
        ValueError: If a row has no reference.
    """

    names = ("bleu", "chrf")

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__class__.__doc__,
            citation="",
            inputs_description="Predictions are texts, references are lists of right texts.",
            features=TEXT_FEATURES,
        )

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        require_sacrebleu()
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF

        predictions, references = comparable_texts(predictions, references)
        # sacrebleu takes the first references of all rows, then the second ones, None where a row has no more.
        streams = list(zip_longest(*references))
        return {
            "bleu": float(BLEU().corpus_score(predictions, streams).score),
            "chrf": float(CHRF().corpus_score(predictions, streams).score),
        }
