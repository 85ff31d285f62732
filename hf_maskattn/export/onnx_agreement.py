"""How often two ONNX files of one classifier predict the same."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from hf_maskattn.export.onnx_runtime import OnnxSession


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
