"""Metrics of texts: error rates, exact match, BLEU and chrF, and the evaluation that computes them."""

import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from itertools import pairwise, zip_longest
from typing import Any, Literal

import datasets
import evaluate
import numpy as np
import torch
from transformers import EvalPrediction, PreTrainedTokenizerBase

from hf_maskattn.data.pair_encoding import RowIds
from hf_maskattn.metrics.task_metrics import TaskEvaluation, require_package
from hf_maskattn.model.losses import IGNORED

_JIWER, _SACREBLEU = ("jiwer", "Error rates"), ("sacrebleu", "BLEU and chrF")
"""Packages, and what they are needed for."""


def error_rate(predictions: Sequence[str], references: Sequence[Sequence[str]], *, unit: Literal["character", "word"]) -> float:
    """Compute the error rate against the closest reference of each row.

    An edit is the insertion, deletion or substitution of a unit. The first one of equally close references is used.

    Args:
        predictions: One text per row.
        references: At least one reference per row.
        unit: Unit of the edits: characters, or words separated by white space.

    Returns:
        Number of edits of all rows, divided by the number of units in their closest references. It may exceed 1.

    Raises:
        ImportError: jiwer is not installed.
        ValueError: The closest references are all empty.

    Source:
        The Levenshtein distance, as computed by jiwer.
    """
    require_package(*_JIWER)
    import jiwer

    process: Callable[..., Any] = jiwer.process_characters if unit == "character" else jiwer.process_words
    # One call for all pairs; the references of a row are consecutive.
    output = process(
        [text for texts in references for text in texts],
        [prediction for prediction, texts in zip(predictions, references, strict=True) for _ in texts],
    )
    edits = [sum(_num_edits(chunk) for chunk in chunks if chunk.type != "equal") for chunks in output.alignments]
    ends = [0]
    for texts in references:
        ends.append(ends[-1] + len(texts))
    closest = [min(range(start, end), key=edits.__getitem__) for start, end in pairwise(ends)]
    num_units = sum(len(output.references[pair]) for pair in closest)
    if num_units == 0:
        raise ValueError(f"references must contain at least one {unit} for an error rate, got none in {len(references)} rows.")
    return sum(edits[pair] for pair in closest) / num_units


def _num_edits(chunk: Any) -> int:
    return max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)


def decode_texts(
    tokenizer: PreTrainedTokenizerBase, rows: Iterable[Sequence[int]], *, excluded: Collection[int] = ()
) -> list[str]:
    """Decode rows of token ids.

    Args:
        tokenizer: Tokenizer of the model.
        rows: Token ids of each text. Special tokens are removed, except for the unknown token: without it a wrong text could
            match a reference.
        excluded: Further ids to remove.

    Returns:
        The texts.
    """
    removed = {*excluded, *tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    kept = [[int(number) for number in ids if int(number) not in removed] for ids in rows]
    return tokenizer.batch_decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def normalize_texts(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Normalize predictions and references to Unicode NFC and strip white space; case is preserved, and texts may be empty.

    Raises:
        ValueError: There are no rows, or a row has no reference.
    """
    if not references:
        raise ValueError("The evaluation must have at least one row, got none.")
    for row, texts in enumerate(references):
        if not texts:
            raise ValueError(f"row {row} (counted from 0) must have at least one reference, got none.")
    return [_normalize(text) for text in predictions], [[_normalize(text) for text in texts] for texts in references]


def _normalize(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


class _TextMetric(evaluate.Metric):
    """Base of metrics of one text and a list of references per row. The description is the docstring of the class.

    Attributes:
        names: Names of its values.
        requirement: Package that it needs, and for what.
    """

    names: tuple[str, ...]
    requirement = _JIWER
    _inputs = "Predictions are texts, references are lists of texts."

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=self.__class__.__doc__,
            citation="",
            inputs_description=self._inputs,
            features=datasets.Features({"predictions": text, "references": datasets.List(text)}),
        )


class PronunciationMetric(_TextMetric):
    """Word error rate (fraction of words that match no reference) and phoneme error rate (to the closest reference).

    Phonemes are separated by white space, and compared in Unicode NFC and with case. One row is one word.

    Raises:
        ImportError: jiwer is not installed.
        ValueError: A row has no reference, or all references are empty.
    """

    names = ("wer", "per")
    _inputs = "Predictions are pronunciations, references are lists of pronunciations."

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        predictions, references = normalize_texts(predictions, references)
        num_errors = sum(
            text.split() not in [reference.split() for reference in texts]
            for text, texts in zip(predictions, references, strict=True)
        )
        return {
            "wer": num_errors / len(predictions),
            "per": error_rate(predictions, references, unit="word"),
        }


class TextMatchMetric(_TextMetric):
    """Fraction of texts that match a reference, and character error rate against the closest reference.

    Texts are compared in Unicode NFC and with case, without leading and trailing white space.

    Raises:
        ImportError: jiwer is not installed.
        ValueError: A row has no reference, or all references are empty.
    """

    names = ("exact_match", "cer")

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        predictions, references = normalize_texts(predictions, references)
        num_matches = sum(text in texts for text, texts in zip(predictions, references, strict=True))
        return {
            "exact_match": num_matches / len(predictions),
            "cer": error_rate(predictions, references, unit="character"),
        }


def score_rows(metric: str, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Compute the error of each row in the metric "text-match", "pronunciation" or "translation".

    Returns:
        The character error rate; the phoneme error rate; or 1 - chrF / 100. 0 for a text that matches a reference.

    Raises:
        ImportError: jiwer or sacrebleu is not installed.
    """
    rows = list(zip(*normalize_texts(predictions, references), strict=True))
    if metric == "translation":
        require_package(*_SACREBLEU)
        from sacrebleu.metrics.chrf import CHRF

        chrf = CHRF()
        return [float(text not in texts and 1 - chrf.sentence_score(text, texts).score / 100) for text, texts in rows]
    unit: Literal["character", "word"] = "word" if metric == "pronunciation" else "character"
    # An error rate has no value for an empty reference.
    return [error_rate([text], [texts], unit=unit) if all(texts) else float(text not in texts) for text, texts in rows]


def first_lossy_text(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> tuple[str, str] | None:
    """Return the first text that a tokenizer does not restore, compared as metrics compare texts.

    Returns:
        The text and its decoded form; `None` if all texts are restored. Truncation is not considered.
    """
    tokenizer = deepcopy(tokenizer)  # a call without truncation disables the truncation of the tokenizer
    for text in texts:
        (decoded,) = decode_texts(tokenizer, [tokenizer(text_target=text, truncation=False, verbose=False)["input_ids"]])
        (normalized,), ((expected,),) = normalize_texts([decoded], [[text]])
        if normalized != expected:
            return text, decoded
    return None


class TranslationMetric(_TextMetric):
    """Corpus BLEU and chrF, from 0 to 100, by sacrebleu with its defaults.

    BLEU: tokenizer "13a", case-sensitive, exponential smoothing. chrF: character n-grams up to order 6, no word n-grams, beta
    2. Texts are compared in Unicode NFC. Use chrF for languages without spaces between words, which "13a" does not split.

    Source: Post 2018, https://aclanthology.org/W18-6319; Popović 2015, https://aclanthology.org/W15-3049

    Raises:
        ImportError: sacrebleu is not installed.
        ValueError: A row has no reference.
    """

    names = ("bleu", "chrf")
    requirement = _SACREBLEU

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        require_package(*_SACREBLEU)
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF

        predictions, references = normalize_texts(predictions, references)
        # sacrebleu expects the first references of all rows, then the second ones, and None for missing ones.
        streams = list(zip_longest(*references))
        return {
            "bleu": float(BLEU().corpus_score(predictions, streams).score),
            "chrf": float(CHRF().corpus_score(predictions, streams).score),
        }


_TEXT_METRICS: dict[str, type[_TextMetric]] = {
    "text-match": TextMatchMetric,
    "pronunciation": PronunciationMetric,
    "translation": TranslationMetric,
}


def evaluation_for_generation(
    metric: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    references: Mapping[RowIds, list[str]] | None = None,
) -> TaskEvaluation:
    """Return the evaluation of generated texts.

    For `Seq2SeqTrainer` with `predict_with_generate=True` and the `include_for_metrics` of the result.

    Args:
        metric: "text-match" (exact match and CER), "pronunciation" (word and phoneme error rate) or "translation" (BLEU and
            chrF).
        tokenizer: Tokenizer of the model. Special tokens are removed from texts, except for the unknown token.
        references: Reference texts by the token ids of the source and the labels of a row, from `collect_references`. `None`
            decodes the labels instead, which may be truncated or have unknown tokens that a prediction then matches.

    Returns:
        The evaluation; rows may come in any order.

    Raises:
        ValueError: The metric does not exist.
        ImportError: A package that the metric requires is not installed.
    """
    if metric not in _TEXT_METRICS:
        raise ValueError(f"metric must be one of {', '.join(_TEXT_METRICS)}, got {metric!r}.")
    metric_class = _TEXT_METRICS[metric]
    require_package(*metric_class.requirement)
    # Trainer pads sources and labels with either of these.
    padding = {tokenizer.pad_token_id, IGNORED}
    references_of_row = None
    if references is not None:
        references_of_row = {
            (_exclude(source, padding), _exclude(labels, padding)): texts for (source, labels), texts in references.items()
        }

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        predicted_texts = decode_texts(tokenizer, prediction.predictions, excluded={IGNORED})
        if references_of_row is None:
            reference_texts = [[text] for text in decode_texts(tokenizer, prediction.label_ids, excluded={IGNORED})]
        else:
            if prediction.inputs is None:
                raise ValueError('References are looked up by source and labels. Set training.include_for_metrics: ["inputs"].')
            rows = zip(prediction.inputs, prediction.label_ids, strict=True)
            reference_texts = [
                _look_up(references_of_row, _exclude(source, padding), _exclude(labels, padding)) for source, labels in rows
            ]
        return metric_class(keep_in_memory=True).compute(predictions=predicted_texts, references=reference_texts)

    include_for_metrics = () if references is None else ("inputs",)
    return TaskEvaluation(metric_class.names, compute, require_generated_ids, include_for_metrics)


def text_metric_names(*, metric: str, **_: object) -> tuple[str, ...]:
    """Return the names of the values of a text metric; the first one selects the best checkpoint."""
    return _TEXT_METRICS[metric].names


def require_generated_ids(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return generated ids unchanged: `[B, T]` -> `[B, T]`.

    Raises:
        ValueError: They are logits, because nothing was generated.
    """
    if not isinstance(ids, torch.Tensor) or ids.is_floating_point():
        raise ValueError("Text metrics require generated texts. Set training.predict_with_generate: true.")
    return ids


def _exclude(ids: np.ndarray | tuple[int, ...], excluded: set[int]) -> tuple[int, ...]:
    return tuple(int(number) for number in ids if int(number) not in excluded)


def _look_up(references: dict[RowIds, list[str]], source: tuple[int, ...], labels: tuple[int, ...]) -> list[str]:
    if (source, labels) not in references:
        raise ValueError(
            f"references must contain all rows, got none for the source ids {source[:10]} and the labels {labels[:10]}. "
            "Collect them from the evaluated rows with collect_references."
        )
    return references[source, labels]
