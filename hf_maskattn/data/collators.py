"""Collators: random masks and unknown words that depend only on seed, epoch and row, and pairs of texts."""

import hashlib
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from itertools import chain
from types import MethodType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from transformers import DataCollatorForLanguageModeling, DataCollatorForSeq2Seq, PreTrainedTokenizerBase

if TYPE_CHECKING:
    from hf_maskattn.data.streaming import RowStream


class RowSeededCollator:
    """Base of collators whose random numbers for a row are seeded by a seed, the epoch and the tokens of the row.

    The numbers of a row are therefore the same in any batch, process and dataloader worker, and in a resumed run; they differ
    between epochs. Rows with the same tokens have the same numbers within an epoch.
    """

    _seed: int

    def _set_seed(self, seed: int) -> None:
        self._seed = seed
        # In shared memory, because dataloader workers may outlive an epoch.
        self._epoch = multiprocessing.RawValue("q", 0)

    def set_epoch(self, epoch: int) -> None:
        """Select the random numbers of an epoch."""
        self._epoch.value = epoch

    def with_own_epoch(self) -> Self:
        """Return a copy that is in epoch 0, and whose epoch is set independently."""
        other = copy(self)
        other._epoch = multiprocessing.RawValue("q", 0)
        return other

    def for_evaluation(self) -> Any:
        """Return the collator of rows that are evaluated, which does not depend on the epoch."""
        raise NotImplementedError

    def _generator(self, ids: torch.Tensor) -> torch.Generator:
        """Return the generator of a row with these token ids."""
        key = f"{self._seed} {self._epoch.value} ".encode() + ids.numpy().tobytes()
        seed = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")
        return torch.Generator().manual_seed(seed)


class RowMaskingCollator(RowSeededCollator, DataCollatorForLanguageModeling):
    """Masks each row as transformers does, but with the random numbers of `RowSeededCollator`.

    Args:
        tokenizer: Tokenizer of the model. Its special tokens are never masked.
        mlm_probability: Probability of masking a token.
        seed: Seed of the masks.

    Raises:
        ValueError: The tokenizer has no mask token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, mlm_probability: float, seed: int):
        super().__init__(tokenizer, mlm_probability=mlm_probability)
        self._set_seed(seed)

    def for_evaluation(self) -> "RowMaskingCollator":
        """Return a collator with the same masks in every epoch."""
        return self.with_own_epoch()

    def torch_mask_tokens(self, inputs, special_tokens_mask=None, offset_mapping=None) -> tuple[torch.Tensor, torch.Tensor]:
        """Mask a padded batch row by row; the overridden method masks it as a whole.

        Args:
            inputs: `[B, T]`, int, token ids.
            special_tokens_mask: `[B, T]`, 1 for tokens that must not be masked; `None` derives it from the token ids.
            offset_mapping: Not used.

        Returns:
            Masked token ids and labels, each `[B, T]`; labels are -100 at tokens that are not masked.
        """
        if special_tokens_mask is None:
            maskable = ~torch.isin(inputs, torch.tensor(self.tokenizer.all_special_ids))  # [B, T]
        else:
            maskable = ~torch.as_tensor(special_tokens_mask).bool()
        masked, labels = inputs.clone(), torch.full_like(inputs, -100)
        for row, is_maskable in enumerate(maskable):
            ids = inputs[row, is_maskable]  # [number of maskable tokens]
            self.generator = self._generator(ids)
            no_special_tokens = torch.zeros_like(ids, dtype=torch.bool)
            masked[row, is_maskable], labels[row, is_maskable] = super().torch_mask_tokens(ids, no_special_tokens)
        return masked, labels


class StreamCollator:
    """Collates rows of a stream by a `RowSeededCollator`, whose epoch is the pass over the stream of the last row of the batch.

    It runs in the process that reads the rows, where the current pass is known.
    """

    def __init__(self, collator: Any, stream: "RowStream"):
        self._collator = collator
        self._process_collator: Any = None
        self._stream = stream

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate the latest rows of the stream."""
        if self._process_collator is None:
            # Created in each worker: workers may be in different passes, but the epoch is in shared memory.
            self._process_collator = self._collator.with_own_epoch()
        self._process_collator.set_epoch(self._stream.current_pass)
        return self._process_collator(rows)


class _LabelShift:
    """What `DataCollatorForSeq2Seq` needs of a model, without its weights, which each worker of a dataloader would be sent."""

    def __init__(self, method: MethodType):
        model: Any = method.__self__
        self.config = model.config
        self._shift = method.__func__

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        return self._shift(self, labels)


class PairCollator(DataCollatorForSeq2Seq):
    """`DataCollatorForSeq2Seq` that adds the mask of the target tokens.

    A model infers it from labels. With label smoothing Trainer does not pass labels to the model, and padding before a target
    would be treated as tokens.

    Args:
        tokenizer: Tokenizer of the model.
        model: The encoder-decoder, whose configuration alone is kept. None adds no inputs of the decoder.
        **settings: Further arguments of `DataCollatorForSeq2Seq`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model: Any = None, **settings: Any):
        method = getattr(model, "prepare_decoder_input_ids_from_labels", None)
        super().__init__(tokenizer, model=None if method is None else _LabelShift(method), **settings)

    def __call__(self, features: list[dict[str, Any]], return_tensors: str | None = None) -> Any:
        """Pad rows of `encode_pairs`.

        Returns:
            Outputs of `DataCollatorForSeq2Seq`, and `decoder_attention_mask` `[B, T]`, int: 1 from the first label of a row to
            the last one. `decoder_input_ids` has the inputs of the same predictions there.
        """
        batch = super().__call__(features, return_tensors)
        is_label = batch["labels"] != self.label_pad_token_id  # [B, T]
        is_after_first = is_label.cumsum(1) > 0
        is_before_last = is_label.flip(1).cumsum(1).flip(1) > 0
        batch["decoder_attention_mask"] = (is_after_first & is_before_last).long()
        return batch


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
    """Count how often each token occurs in batches of rows of token ids: `[vocab_size]`, int64."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for rows in batches:
        counts += np.bincount(np.fromiter(chain.from_iterable(rows), dtype=np.int64), minlength=vocab_size)
    return counts


def count_unknown_words(counts: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return the number of unknown tokens, and of all tokens, for the `[V]` counts of `count_tokens`."""
    return (0 if tokenizer.unk_token_id is None else int(counts[tokenizer.unk_token_id])), int(counts.sum())
