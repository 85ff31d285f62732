"""Unknown words: how many there are, and a collator that trains the unknown token."""

import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from hf_maskattn.data.collators import RowSeededCollator

logger = logging.getLogger(__name__)

_MANY = 0.2
"""Fraction of unknown tokens that is worth a warning."""


class UnknownWordCollator(RowSeededCollator):
    """Replaces tokens by the unknown token at random, frequent ones rarely, so that a model learns from unknown words.

    A token that occurs n times in the training data is replaced with probability alpha / (alpha + n). Special tokens are kept.

    Args:
        collator: Collator that pads the rows.
        tokenizer: Tokenizer of the model, with an unknown token.
        counts: `[V]`, int, number of times that each token occurs in the training data, from `count_tokens`. A token that does
            not occur there, but later in a stream, counts as one that occurs once.
        alpha: Number of occurrences at which every second one is replaced.
        seed: Seed of the replacements.

    Source:
        Kiperwasser and Goldberg 2016, https://arxiv.org/abs/1603.04351, section 4, "word dropout".
    """

    def __init__(
        self,
        collator: Callable[[list[dict[str, Any]]], Any],
        tokenizer: PreTrainedTokenizerBase,
        *,
        counts: np.ndarray,
        alpha: float,
        seed: int,
    ):
        self._collator = collator
        self._unknown = tokenizer.unk_token_id
        self._probabilities = alpha / (alpha + torch.as_tensor(counts).clamp(min=1).float())  # [V]
        self._probabilities[tokenizer.all_special_ids] = 0.0
        self._set_seed(seed)

    def __call__(self, features: list[dict[str, Any]]) -> Any:
        """Pad rows, and replace tokens.

        Returns:
            Outputs of the collator. `input_ids` `[B, T]` has the unknown token at the positions that were drawn.
        """
        batch = self._collator(features)
        is_token = batch["attention_mask"].bool()  # [B, T]
        tokens = batch["input_ids"][is_token]  # [N], row after row
        rows = tokens.split(is_token.sum(1).tolist())
        draws = torch.cat([torch.rand(len(row), generator=self._generator(row)) for row in rows])  # [N]
        batch["input_ids"][is_token] = tokens.masked_fill(draws < self._probabilities[tokens], self._unknown)
        return batch

    def for_evaluation(self) -> Callable[[list[dict[str, Any]]], Any]:
        """Return the collator that pads the rows."""
        return self._collator


def count_tokens(batches: Iterable[Sequence[Sequence[int]]], vocab_size: int) -> np.ndarray:
    """Count how often each token occurs.

    Args:
        batches: Token ids of rows, by batch.
        vocab_size: Number of tokens of the tokenizer.

    Returns:
        `[vocab_size]`, int64.
    """
    counts = np.zeros(vocab_size, dtype=np.int64)
    for rows in batches:
        counts += np.bincount(np.fromiter(chain.from_iterable(rows), dtype=np.int64), minlength=vocab_size)
    return counts


def report_unknown_words(counts: np.ndarray, tokenizer: PreTrainedTokenizerBase, *, name: str, advice: str) -> None:
    """Log how many tokens of a split are the unknown token, unless there is none: a warning if there are many.

    Args:
        counts: `[V]`, number of times that each token occurs in the split.
        tokenizer: Tokenizer of the split.
        name: Name of the split.
        advice: Sentence that follows the warning.
    """
    unknown, total = (0 if tokenizer.unk_token_id is None else int(counts[tokenizer.unk_token_id])), int(counts.sum())
    if unknown == 0:
        return
    message = f"{unknown:,} of {total:,} tokens of the split {name!r} are unknown ({unknown / total:.1%})."
    if unknown > _MANY * total:
        logger.warning(f"{message} {advice}")
    else:
        logger.info(message)
