"""Comparison of an ONNX file with its model, at shapes that the export has not seen, and with another file."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hf_maskattn.inspection.contributions import split_logits
from hf_maskattn.onnx.runtime import OnnxSession

logger = logging.getLogger(__name__)

TOLERANCE = 1e-5

_SHAPES = {"one token": (1, 1), "right padding": (2, 130), "left padding": (3, 19), "holes": (4, 37), "an empty row": (5, 8)}


@dataclass(frozen=True)
class ShapeCheck:
    """Differences of the outputs of a file and its model for one batch.

    Attributes:
        padding: Where the padding is.
        shape: Batch size and time.
        logits: Largest absolute difference of the logits.
        attentions: Largest absolute difference of the attention weights.
        contributions: Largest absolute difference of the contributions; None for a file without them.
    """

    padding: str
    shape: tuple[int, int]
    logits: float
    attentions: float
    contributions: float | None = None


@torch.no_grad()
def check_onnx(model: PreTrainedModel, path: Path) -> list[ShapeCheck]:
    """Compare a file with its model on five batches of random ids, with ids outside of the vocabulary at padding positions.

    Args:
        model: The model, in evaluation mode.
        path: The file.

    Returns:
        The differences of each batch.

    Raises:
        ValueError: If an attention weight, a logit of a sequence or a token, or a contribution differs from the model by more
            than 1e-5 (logits and contributions relative to the largest logit if it is above 1), or an attention weight or a
            contribution at a padding position is not 0.
    """
    session, generator = OnnxSession(path), torch.Generator().manual_seed(0)
    checks = []
    for padding, shape in _SHAPES.items():
        logger.info(f"Checking {shape[0]} x {shape[1]} tokens, {padding} ...")
        mask = _draw_mask(padding, *shape, generator)
        ids = torch.randint(model.config.vocab_size, shape, generator=generator)
        ids = torch.where(mask, ids, -1 - ids)
        outputs = model(input_ids=ids, attention_mask=mask.long(), output_attentions=True)
        is_token = mask.numpy()
        onnx_logits, onnx_weights, *further = session.run(ids.numpy(), mask.long().numpy())
        logits, weights = outputs.logits.numpy(), outputs.attentions[0].numpy()
        if logits.ndim == 3:  # logits of a token head at padding positions have no meaning
            onnx_logits, logits = onnx_logits[is_token], logits[is_token]
        difference = _max_difference(onnx_logits, logits)
        if further:
            difference = max(difference, _max_difference(further[0], outputs.sequence_logits.numpy()))
        check = ShapeCheck(padding, shape, difference, _max_difference(onnx_weights, weights))
        scale = float(np.abs(logits[np.isfinite(logits)]).max(initial=1.0))
        on_padding = float(np.abs(np.where(is_token[:, None, None], 0, onnx_weights)).max())
        if not (check.logits <= TOLERANCE * scale and check.attentions <= TOLERANCE and on_padding == 0):
            raise ValueError(
                f"The ONNX file differs from the model at {shape[0]} x {shape[1]} tokens with {padding}: logits by "
                f"{check.logits:.1e}, attention weights by {check.attentions:.1e}, and the largest weight at padding is "
                f"{on_padding:.1e}."
            )
        if session.has_contributions:
            check = replace(check, contributions=_check_contributions(model, session, ids, mask, scale))
        checks.append(check)
    return checks


def _check_contributions(
    model: PreTrainedModel, session: OnnxSession, ids: torch.Tensor, mask: torch.Tensor, scale: float
) -> float:
    """Compare the contributions of a batch and return the largest difference."""
    expected, _ = split_logits(model, {"input_ids": ids, "attention_mask": mask.long()})
    found = session.compute_contributions(ids.numpy(), mask.long().numpy())
    difference = _max_difference(found, expected.numpy())
    if not difference <= TOLERANCE * scale or found[~mask.numpy()].any():
        raise ValueError(
            f"The ONNX file differs from the model at {ids.shape[0]} x {ids.shape[1]} tokens: contributions by "
            f"{difference:.1e}, or they are not 0 at padding."
        )
    return difference


def _draw_mask(padding: str, batch_size: int, time: int, generator: torch.Generator) -> torch.Tensor:
    """Draw a mask `[B, T]`, bool, True = token. The first row has all tokens, or none."""
    columns = torch.arange(time)
    lengths = torch.randint(1, time + 1, (batch_size, 1), generator=generator)
    lengths[0] = time
    if padding == "left padding":
        return columns >= time - lengths
    if padding == "holes":
        return torch.rand(batch_size, time, generator=generator) < 0.6
    mask = columns < lengths
    mask[0] &= padding != "an empty row"
    return mask


def _max_difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest absolute difference, infinity if the shapes differ. Labels that a CRF forbids are minus infinity."""
    if actual.shape != expected.shape:
        return float("inf")
    with np.errstate(invalid="ignore"):
        return float(np.where(actual == expected, 0, np.abs(actual - expected)).max(initial=0))


@dataclass(frozen=True)
class Agreement:
    """Comparison of two files on texts.

    Attributes:
        predictions: Number of predictions: one a text, one a label for multi-label models, one a token, or one a text and
            one a token. 0 for regression.
        equal: Number of predictions that are equal.
        difference: Largest absolute difference of the logits.
    """

    predictions: int
    equal: int
    difference: float


def compare_predictions(
    session: OnnxSession,
    other: OnnxSession,
    tokenizer: PreTrainedTokenizerBase,
    config: PreTrainedConfig,
    texts: Sequence[str],
    batch_size: int = 32,
) -> Agreement:
    """Compare the predictions of two files of a classifier on at least one text.

    Texts are truncated to the `model_max_length` of the tokenizer.
    """
    predictions, equal, difference = 0, 0, 0.0
    for start in range(0, len(texts), batch_size):
        inputs = tokenizer(
            texts[start : start + batch_size],
            padding=True,
            truncation=True,
            return_special_tokens_mask=True,
            return_tensors="np",
        )
        ids, mask = inputs["input_ids"].astype(np.int64), inputs["attention_mask"].astype(np.int64)
        (logits, _, *further), (other_logits, _, *other_further) = session.run(ids, mask), other.run(ids, mask)
        if logits.ndim == 3:
            is_word = (mask == 1) & (inputs["special_tokens_mask"] == 0)
            logits, other_logits = logits[is_word], other_logits[is_word]  # [N, num_labels]
        for ours, theirs in zip([logits, *further], [other_logits, *other_further], strict=True):
            difference = max(difference, _max_difference(ours, theirs))
            same = _to_predictions(ours, config) == _to_predictions(theirs, config)
            predictions += same.size
            equal += int(same.sum())
    return Agreement(predictions, equal, difference)


def _to_predictions(logits: np.ndarray, config: PreTrainedConfig) -> np.ndarray:
    """Convert logits `[N, num_labels]` to predictions as pipelines do. There are none for regression."""
    if config.problem_type == "regression":
        return np.empty(0)
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return logits > 0
    return logits.argmax(axis=-1)
