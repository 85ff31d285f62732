"""Error rates by edit distance; the only file that imports jiwer."""

import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from copy import deepcopy
from importlib.util import find_spec
from itertools import pairwise, zip_longest
from typing import Any, Literal

import datasets
import evaluate
from transformers import PreTrainedTokenizerBase

from hf_maskattn.model.remote_code import install_command


def require_jiwer() -> None:
    """Find out before a training, not after its first epoch, whether edits can be counted.

    Raises:
        ImportError: If jiwer is not installed.
    """
    if find_spec("jiwer") is None:
        raise ImportError(f"Error rates need jiwer, which is not installed: {install_command('examples')}")


def error_rate(predictions: Sequence[str], references: Sequence[Sequence[str]], *, unit: Literal["character", "word"]) -> float:
    """Count the edits that turn each prediction into the reference closest to it.

    An edit is a unit that is put in, left out or replaced. Of references that are equally close, the first counts.

    Args:
        predictions: A text for each row.
        references: The right texts of each row, at least one.
        unit: What is counted: characters, or words apart by white space.

    Returns:
        Edits of all rows, divided by the units of their closest references; above 1 where there are more edits.

    Raises:
        ImportError: If jiwer is not installed.
        ValueError: If all of the closest references are empty.

    Source:
        The Levenshtein distance, as computed by jiwer.
    """
    require_jiwer()
    import jiwer

    process: Callable[..., Any] = jiwer.process_characters if unit == "character" else jiwer.process_words
    # One call for all pairs; the references of a row stand next to each other.
    counted = process(
        [text for texts in references for text in texts],
        [prediction for prediction, texts in zip(predictions, references, strict=True) for _ in texts],
    )
    edits = [sum(_size(chunk) for chunk in chunks if chunk.type != "equal") for chunks in counted.alignments]
    ends = [0]
    for texts in references:
        ends.append(ends[-1] + len(texts))
    closest = [min(range(start, end), key=edits.__getitem__) for start, end in pairwise(ends)]
    units = sum(len(counted.references[pair]) for pair in closest)
    if units == 0:
        raise ValueError(f"There is no {unit} in the references of this evaluation, an error rate cannot be computed.")
    return sum(edits[pair] for pair in closest) / units


def _size(chunk: Any) -> int:
    return max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)


def decode_texts(
    tokenizer: PreTrainedTokenizerBase, rows: Iterable[Sequence[int]], *, dropped: Collection[int] = ()
) -> list[str]:
    """Turn rows of token ids into texts.

    Args:
        tokenizer: The tokenizer of the model.
        rows: The ids of each text. Special tokens are dropped, except the unknown token: if it vanished, a wrong text could
            look right.
        dropped: Further ids that stand for nothing.

    Returns:
        The texts.
    """
    nothing = {*dropped, *tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    kept = [[int(number) for number in ids if int(number) not in nothing] for ids in rows]
    return tokenizer.batch_decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)


TEXT_FEATURES = datasets.Features(
    {"predictions": datasets.Value("string"), "references": datasets.List(datasets.Value("string"))}
)
"""What `evaluate` is told: one text, and a list of right ones."""


def comparable_texts(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Bring texts into Unicode NFC and drop white space at their ends; upper and lower case stay apart.

    Args:
        predictions: A text for each row; it may be empty.
        references: The right texts of each row, at least one; they may be empty texts.

    Returns:
        The predictions and the references.

    Raises:
        ValueError: There are no rows, or a row has no reference.
    """
    if not references:
        raise ValueError("There are no rows in this evaluation, there is nothing to score.")
    for row, texts in enumerate(references):
        if not texts:
            raise ValueError(f"row {row} (counted from 0) has no reference: give it at least one right text.")
    return [_comparable(text) for text in predictions], [[_comparable(text) for text in texts] for texts in references]


def _comparable(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


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


def first_changed_text(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> tuple[str, str] | None:
    """Find a text that is another one once it was cut into tokens and put together again, as metrics compare texts.

    Args:
        tokenizer: The tokenizer of a model that writes texts.
        texts: Right answers.

    Returns:
        The first such text and what becomes of it; None if all texts come back. That a tokenizer cuts off what is too long
        does not count.
    """
    tokenizer = deepcopy(tokenizer)  # a call without truncation takes the cut away from it
    for text in texts:
        (back,) = decode_texts(tokenizer, [tokenizer(text_target=text, truncation=False, verbose=False)["input_ids"]])
        (found,), ((expected,),) = comparable_texts([back], [[text]])
        if found != expected:
            return text, back
    return None


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
