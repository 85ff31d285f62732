"""Metric of tagging in which tags mark spans."""

from importlib.util import find_spec

import datasets
import evaluate

from hf_maskattn.model.code_version import install_command

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
