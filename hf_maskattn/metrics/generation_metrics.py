"""Which metric goes with generated texts, in the form `Seq2SeqTrainer` takes."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from transformers import EvalPrediction, PreTrainedTokenizerBase

from hf_maskattn.metrics import classification as logit_reduction
from hf_maskattn.metrics.task_metrics import TaskEvaluation
from hf_maskattn.metrics.text import (
    PronunciationMetric,
    TextMatchMetric,
    TranslationMetric,
    decode_texts,
    require_jiwer,
    require_sacrebleu,
)
from hf_maskattn.model.losses import IGNORED

_RowIds = tuple[tuple[int, ...], tuple[int, ...]]
"""The token ids of a source, and the labels of its row."""

_METRICS: dict[str, tuple[Any, Callable[[], None]]] = {
    "text-match": (TextMatchMetric, require_jiwer),
    "pronunciation": (PronunciationMetric, require_jiwer),
    "translation": (TranslationMetric, require_sacrebleu),
}


def evaluation_for_generation(
    metric: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    references: Mapping[_RowIds, list[str]] | None = None,
) -> TaskEvaluation:
    """Find how generated token ids are evaluated.

    For `Seq2SeqTrainer` with `predict_with_generate=True` and `include_for_metrics` of the result.

    Args:
        metric: "text-match" (exact match and CER), "pronunciation" (word and phoneme error rate) or "translation" (BLEU and
            chrF).
        tokenizer: What turns ids into texts. Special tokens are dropped, except the unknown token.
        references: The right texts by the token ids of source and labels of their row, as `references_of` collects them.
            `None` takes the labels for the right texts, as they come out of the tokenizer: cut off where they were cut, and
            with the unknown token, which a prediction may then equal.

    Returns:
        The metric, which finds the references of a row by its source and its labels, in whatever order rows come.

    Raises:
        ValueError: If there is no such metric.
        ImportError: If what it needs is not installed.
    """
    if metric not in _METRICS:
        raise ValueError(f"metric={metric!r} does not exist: use {', '.join(_METRICS)}.")
    metric_class, require = _METRICS[metric]
    require()
    # Trainer pads either with both.
    padding = {tokenizer.pad_token_id, IGNORED}
    known = None
    if references is not None:
        known = {(_without(ids, padding), _without(labels, padding)): right for (ids, labels), right in references.items()}

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        if known is None:
            right = [[text] for text in decode_texts(tokenizer, prediction.label_ids, dropped={IGNORED})]
        else:
            rows = zip(_inputs(prediction), prediction.label_ids, strict=True)
            right = [_look_up(known, _without(ids, padding), _without(labels, padding)) for ids, labels in rows]
        predictions = decode_texts(tokenizer, prediction.predictions, dropped={IGNORED})
        return metric_class(keep_in_memory=True).compute(predictions=predictions, references=right)

    return TaskEvaluation(
        metric_class.names,
        compute,
        logit_reduction.generated_ids,
        include_for_metrics=() if references is None else ("inputs",),
    )


def text_metric_names(metric: str) -> tuple[str, ...]:
    """Name the values of a metric; the first tells which checkpoint is best."""
    return _METRICS[metric][0].names


def _without(ids: np.ndarray | tuple[int, ...], dropped: set[int]) -> tuple[int, ...]:
    return tuple(int(number) for number in ids if int(number) not in dropped)


def _inputs(prediction: EvalPrediction) -> np.ndarray:
    if prediction.inputs is None:
        raise ValueError('The references are found by sources and labels: set training.include_for_metrics: ["inputs"].')
    return prediction.inputs


def _look_up(references: dict[_RowIds, list[str]], source: tuple[int, ...], labels: tuple[int, ...]) -> list[str]:
    if (source, labels) not in references:
        raise ValueError(
            f"There are no references for the source with the token ids {source[:10]} and the labels {labels[:10]}: collect "
            "them from the rows that are evaluated, with references_of."
        )
    return references[source, labels]
