"""Metrics of tags, and of tags together with the label of a sentence."""

from collections.abc import Callable, Sequence
from functools import partial

import datasets
import numpy as np
import torch
from transformers import EvalPrediction

from hf_maskattn.data.tag_decoding import decode_words
from hf_maskattn.data.tag_encoding import split_word_label
from hf_maskattn.data.tag_schemes import are_span_tags
from hf_maskattn.metrics.classification import (
    ItemMetric,
    SingleLabelMetric,
    class_scores,
    find_labeled,
    score_positions,
    text_classification_evaluation,
)
from hf_maskattn.metrics.task_metrics import TaskEvaluation, require_package
from hf_maskattn.model.losses import IGNORED


class SpanMetric(ItemMetric):
    """Precision, recall and F1 of spans (type and both boundaries must match), and tag accuracy, by words.

    A word has the prediction of its first token, the convention of published figures. A word without a token, as beyond the
    maximum length, has the prediction "O".

    Source: the CoNLL-2000 evaluation, as computed by seqeval.

    Raises:
        ImportError: seqeval is not installed.
    """

    names = ("f1", "precision", "recall", "accuracy")
    _inputs = "Predictions and references are the tags of each sentence."
    _feature = datasets.List(datasets.Value("string"))

    def _compute(self, predictions: list[list[str]], references: list[list[str]]) -> dict[str, float]:
        require_package("seqeval", "Span metrics")
        from seqeval.metrics.sequence_labeling import accuracy_score, precision_recall_fscore_support

        precision, recall, f1, _ = precision_recall_fscore_support(references, predictions, average="micro", zero_division=0)
        return {
            "f1": float(f1),
            "precision": float(precision),
            "recall": float(recall),
            "accuracy": float(accuracy_score(references, predictions)),
        }


def token_classification_evaluation(
    *, label_names: Sequence[str] = (), tag_scheme: str | None = None, **_: object
) -> TaskEvaluation:
    """Return the evaluation of token classification. See `evaluation_for`."""
    tags = list(label_names)
    decode = partial(decode_words, names=tags, follows_scheme=tag_scheme not in (None, "none"))
    if are_span_tags(tags, tag_scheme):
        require_package("seqeval", "Span metrics")
        score = partial(_score_spans, tags=tags)
        return TaskEvaluation(SpanMetric.names, score, decode, score_predictions=tag_scores)
    score = partial(score_positions, metric_class=SingleLabelMetric, num_labels=len(tags))
    return TaskEvaluation(SingleLabelMetric.names, score, decode, score_predictions=tag_scores)


def token_classification_metric_names(**_: object) -> tuple[str, ...]:
    """Return the names of all metrics of token classification. The tags determine which of them are computed."""
    return tuple(dict.fromkeys((*SpanMetric.names, *SingleLabelMetric.names)))


SENTENCE_ACCURACY = "sentence_accuracy"
"""Fraction of the sentences whose label and tags are all correct, by which joint classification selects the best checkpoint."""

_TAG_PREFIX = "tag_"
"""Prefix of the metrics of tags, where a sentence has a label too."""


def joint_classification_evaluation(
    *, label_names: Sequence[str] = (), tag_scheme: str | None = None, **_: object
) -> TaskEvaluation:
    """Return the evaluation of joint classification, on predictions and labels that are pairs: of tags and of sentences.

    The accuracy of tags that mark spans is left out: most of them are "O".

    Source: Liu and Lane 2016, for the accuracy of sentences, also known as overall accuracy or exact match.
    """
    tags = token_classification_evaluation(label_names=label_names, tag_scheme=tag_scheme)
    sentences = text_classification_evaluation()
    tag_names = [name for name in tags.metric_names if "f1" not in tags.metric_names or name != "accuracy"]
    names = (SENTENCE_ACCURACY, "accuracy", *(_TAG_PREFIX + name for name in tag_names))
    return TaskEvaluation(
        names,
        partial(_score_both, names=names, tags=tags, sentences=sentences, num_tags=len(label_names)),
        partial(_apply_both, functions=(tags.preprocess_logits, sentences.preprocess_logits)),
        score_predictions=partial(_apply_both, functions=(tag_scores, class_scores)),
    )


def joint_classification_metric_names(**_: object) -> tuple[str, ...]:
    """Return the names of all metrics of joint classification. The tags determine which of them are computed."""
    return (SENTENCE_ACCURACY, "accuracy", *(_TAG_PREFIX + name for name in token_classification_metric_names()))


def tag_scores(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the probability of the predicted tag of each token: `[B, T, num_labels]` -> `[B, T]`, float32."""
    return logits.float().softmax(dim=-1).amax(dim=-1)


def score_by_entity(labels: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]) -> dict[str, dict[str, float]]:
    """Score each type of entity by the tags of rows. See `score_by_class`.

    Raises:
        ImportError: seqeval is not installed.
    """
    require_package("seqeval", "Span metrics")
    from seqeval.metrics.sequence_labeling import classification_report, get_entities

    if not get_entities([*labels]) and not get_entities([*predictions]):
        return {}  # seqeval averages over no type
    report = classification_report(labels, predictions, output_dict=True, zero_division=0)
    return {
        name: {key: float(values[key]) for key in ("precision", "recall")}
        | {"f1": float(values["f1-score"]), "support": int(values["support"])}
        for name, values in report.items()
        if not name.endswith(" avg")
    }


def _score_spans(prediction: EvalPrediction, *, tags: list[str]) -> dict[str, float]:
    """Score the tags of each sentence together."""
    predictions, labels, is_labeled = find_labeled(prediction)  # [N, T]
    references, _ = split_word_label(labels, len(tags))
    return SpanMetric(keep_in_memory=True).compute(
        predictions=_tags_of_ids(predictions, is_labeled, tags), references=_tags_of_ids(references, is_labeled, tags)
    )


def _apply_both(
    logits: tuple[torch.Tensor, torch.Tensor], labels: tuple[torch.Tensor, torch.Tensor], *, functions: Sequence[Callable]
) -> tuple[torch.Tensor, ...]:
    """Apply a function of tags and one of sentences to their logits and labels."""
    return tuple(function(*values) for function, *values in zip(functions, logits, labels, strict=True))


def _score_both(
    prediction: EvalPrediction, *, names: Sequence[str], tags: TaskEvaluation, sentences: TaskEvaluation, num_tags: int
) -> dict[str, float]:
    predicted_tags, predicted_labels = prediction.predictions
    tag_ids, label_ids = prediction.label_ids
    references, _ = split_word_label(tag_ids, num_tags)
    is_right_tag = (predicted_tags == references) | (tag_ids == IGNORED)  # [N, T]
    is_right = is_right_tag.all(axis=1) & (predicted_labels == label_ids)
    tag_scores = tags.compute_metrics(EvalPrediction(predictions=predicted_tags, label_ids=tag_ids))
    label_scores = sentences.compute_metrics(EvalPrediction(predictions=predicted_labels, label_ids=label_ids))
    scores = {SENTENCE_ACCURACY: float(is_right.mean()), **label_scores}
    scores |= {_TAG_PREFIX + name: value for name, value in tag_scores.items()}
    return {name: scores[name] for name in names}


def _tags_of_ids(ids: np.ndarray, is_labeled: np.ndarray, tags: list[str]) -> list[list[str]]:
    names = [*tags, "O"]  # NO_LABEL is the last one
    return [[names[i] for i in row[is_kept]] for row, is_kept in zip(ids, is_labeled, strict=True)]
