"""Rows of tokens -> a batch for masked language modeling, with masks that follow from seed, epoch and row alone."""

import hashlib
import multiprocessing
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DataCollatorForLanguageModeling, DataCollatorForSeq2Seq, PreTrainedTokenizerBase

from hf_maskattn.data.streaming import RowStream


class RowMaskingCollator(DataCollatorForLanguageModeling):
    """Masks each row as transformers does, but draws from the seed, the epoch and the tokens of that row.

    A row then has the same masks in any batch, process and dataloader worker, and in a run that was resumed; in another epoch
    it has other ones. Rows of the same tokens are masked alike within an epoch.

    Args:
        tokenizer: Tells the special tokens, which are never masked, and pads.
        mlm_probability: Share of the tokens that are masked.
        seed: Chooses the masks.

    Raises:
        ValueError: If the tokenizer has no mask token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, mlm_probability: float, seed: int):
        super().__init__(tokenizer, mlm_probability=mlm_probability)
        self._mask_seed = seed
        # In memory that workers of a dataloader share, since they may outlive an epoch.
        self._epoch = multiprocessing.RawValue("q", 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the masks of an epoch."""
        self._epoch.value = epoch

    def with_fixed_masks(self) -> "RowMaskingCollator":
        """Give a collator that masks the same tokens in every epoch."""
        fixed = copy(self)
        fixed._epoch = multiprocessing.RawValue("q", 0)
        return fixed

    def torch_mask_tokens(self, inputs, special_tokens_mask=None, offset_mapping=None) -> tuple[torch.Tensor, torch.Tensor]:
        """Mask a padded batch, row by row; overrides the way of transformers, which masks it as a whole.

        Args:
            inputs: `[B, T]`, int, token ids.
            special_tokens_mask: `[B, T]`, 1 where nothing may be masked; None finds special tokens by their ids.
            offset_mapping: Not used.

        Returns:
            Token ids with masks, and labels, each `[B, T]`; -100 where nothing was masked.
        """
        if special_tokens_mask is None:
            maskable = ~torch.isin(inputs, torch.tensor(self.tokenizer.all_special_ids))  # [B, T]
        else:
            maskable = ~torch.as_tensor(special_tokens_mask).bool()
        masked, labels = inputs.clone(), torch.full_like(inputs, -100)
        for row, where in enumerate(maskable):
            ids = inputs[row, where]  # [number of maskable tokens]
            self.generator = torch.Generator().manual_seed(self._seed_of(ids))
            nowhere = torch.zeros_like(ids, dtype=torch.bool)
            masked[row, where], labels[row, where] = super().torch_mask_tokens(ids, nowhere)
        return masked, labels

    def _seed_of(self, ids: torch.Tensor) -> int:
        text = f"{self._mask_seed} {self._epoch.value} ".encode() + ids.numpy().tobytes()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


@dataclass
class PairCollator(DataCollatorForSeq2Seq):
    """`DataCollatorForSeq2Seq` that also tells which target tokens are real.

    A model that is given labels sees it from them. With label smoothing Trainer keeps the labels to itself, and pads before
    a target would be read as words of it.
    """

    def __call__(self, features: list[dict[str, Any]], return_tensors: str | None = None) -> Any:
        """Pad rows of `encode_pairs`.

        Returns:
            What `DataCollatorForSeq2Seq` returns, with `decoder_attention_mask` `[B, T]`, int: 1 from the first label of a row
            to its last, which is where `decoder_input_ids` has the tokens to predict them from.
        """
        batch = super().__call__(features, return_tensors)
        labelled = batch["labels"] != self.label_pad_token_id
        begun, to_come = labelled.cumsum(1) > 0, labelled.flip(1).cumsum(1).flip(1) > 0
        batch["decoder_attention_mask"] = (begun & to_come).long()
        return batch


class StreamMaskingCollator:
    """Masks the rows of a stream, in each pass anew; those of a batch as in the pass of its last row.

    It runs in the process that reads the rows, where the stream knows its pass.

    Args:
        collator: How rows are masked.
        stream: What they come from.
    """

    def __init__(self, collator: RowMaskingCollator, stream: RowStream):
        self._collator = collator
        self._own: RowMaskingCollator | None = None
        self._stream = stream

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch of the rows that the stream gave last."""
        if self._own is None:
            # Made in this process: the workers of a dataloader need not be in the same pass.
            self._own = self._collator.with_fixed_masks()
        self._own.set_epoch(self._stream.current_pass)
        return self._own(rows)
