"""An ONNX file gives what its model gives, at shapes that the export has not seen."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hf_maskattn.onnx.runtime import OnnxSession

logger = logging.getLogger(__name__)

TOLERANCE = 1e-5

_SHAPES = {"one token": (1, 1), "right padding": (2, 130), "left padding": (3, 19), "holes": (4, 37), "an empty row": (5, 8)}


@dataclass(frozen=True)
class ShapeCheck:
    """How far the outputs of a file are from those of its model for one batch.

    Attributes:
        arrangement: Where the pads are.
        shape: Batch size and time.
        logits: Largest absolute difference of the logits.
        attentions: Largest absolute difference of the attention weights.
    """

    arrangement: str
    shape: tuple[int, int]
    logits: float
    attentions: float


@torch.no_grad()
def check_onnx(model: PreTrainedModel, path: Path) -> list[ShapeCheck]:
    """Compare a file with its model for five batches of random ids, with ids outside of the vocabulary at pads.

    Args:
        model: The model, in evaluation mode.
        path: The file.

    Returns:
        The differences for each batch.

    Raises:
        ValueError: If an attention weight or the logits of a sequence or a real token are farther than 1e-5 from those of
            the model (logits above 1: relative to the largest one), or an attention weight at a pad is not 0.
    """
    session, generator = OnnxSession(path), torch.Generator().manual_seed(0)
    checks = []
    for arrangement, shape in _SHAPES.items():
        logger.info(f"checking {shape[0]} x {shape[1]} tokens, {arrangement} ...")
        mask = _mask(arrangement, *shape, generator)
        ids = torch.randint(model.config.vocab_size, shape, generator=generator)
        ids = torch.where(mask, ids, -1 - ids)
        outputs = model(input_ids=ids, attention_mask=mask.long(), output_attentions=True)
        real = mask.numpy()
        found_logits, found_weights = session.run(ids.numpy(), mask.long().numpy())
        logits, weights = outputs.logits.numpy(), outputs.attentions[0].numpy()
        if logits.ndim == 3:  # what a head for tokens says of a pad means nothing
            found_logits, logits = found_logits[real], logits[real]
        check = ShapeCheck(arrangement, shape, _distance(found_logits, logits), _distance(found_weights, weights))
        scale = max(1.0, float(np.abs(logits).max()))
        on_pads = float(np.abs(np.where(real[:, None, None], 0, found_weights)).max())
        if not (check.logits <= TOLERANCE * scale and check.attentions <= TOLERANCE and on_pads == 0):
            raise ValueError(
                f"the ONNX file is not equal to the model at {shape[0]} x {shape[1]} tokens with {arrangement}: logits differ "
                f"by {check.logits:.1e}, attention weights by {check.attentions:.1e}, of which {on_pads:.1e} are on a pad."
            )
        checks.append(check)
    return checks


def _mask(arrangement: str, batch_size: int, time: int, generator: torch.Generator) -> torch.Tensor:
    """Draw a mask `[B, T]`, bool, True = real; the first row has all tokens, or none."""
    columns = torch.arange(time)
    lengths = torch.randint(1, time + 1, (batch_size, 1), generator=generator)
    lengths[0] = time
    if arrangement == "left padding":
        return columns >= time - lengths
    if arrangement == "holes":
        return torch.rand(batch_size, time, generator=generator) < 0.6
    mask = columns < lengths
    mask[0] &= arrangement != "an empty row"
    return mask


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    """Find the largest absolute difference; infinite where shapes differ."""
    return float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")


@dataclass(frozen=True)
class Agreement:
    """How a file compares with another over texts.

    Attributes:
        predictions: Number of predictions: texts, labels of texts where there may be several, or tokens. 0 for regression.
        equal: Number of them that both files make.
        difference: Largest absolute difference of the logits.
    """

    predictions: int
    equal: int
    difference: float


def agreement(
    session: OnnxSession,
    other: OnnxSession,
    tokenizer: PreTrainedTokenizerBase,
    config: PreTrainedConfig,
    texts: Sequence[str],
    batch_size: int = 32,
) -> Agreement:
    """Compare the predictions of two files.

    Args:
        session: A file.
        other: Another file of the same classifier.
        tokenizer: Its tokenizer; texts are cut at the length it knows.
        config: Its configuration.
        texts: The texts, at least one.
        batch_size: Number of texts that go through a file together.
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
        ids, mask = (inputs[name].astype(np.int64) for name in ("input_ids", "attention_mask"))
        (one, _), (two, _) = session.run(ids, mask), other.run(ids, mask)
        if one.ndim == 3:
            read = (mask == 1) & (inputs["special_tokens_mask"] == 0)
            one, two = one[read], two[read]  # [N, num_labels]
        difference = max(difference, float(np.abs(one - two).max(initial=0)))
        same = _predictions(one, config) == _predictions(two, config)
        predictions, equal = predictions + same.size, equal + int(same.sum())
    return Agreement(predictions, equal, difference)


def _predictions(logits: np.ndarray, config: PreTrainedConfig) -> np.ndarray:
    """Say what logits `[N, num_labels]` predict, as pipelines do; nothing for regression."""
    if config.problem_type == "regression":
        return np.empty(0)
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return logits > 0
    return logits.argmax(axis=-1)
