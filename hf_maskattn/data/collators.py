"""Collators: masked language modeling with masks that depend only on seed, epoch and row, and pairs of texts."""

import hashlib
import multiprocessing
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import DataCollatorForLanguageModeling, DataCollatorForSeq2Seq, PreTrainedTokenizerBase

if TYPE_CHECKING:
    from hf_maskattn.data.streaming import RowStream


class RowMaskingCollator(DataCollatorForLanguageModeling):
    """Masks each row as transformers does, but seeded by the seed, the epoch and the tokens of the row.

    The masks of a row are therefore the same in any batch, process and dataloader worker, and in a resumed run; they differ
    between epochs. Rows with the same tokens have the same masks within an epoch.

    Args:
        tokenizer: Tokenizer of the model. Its special tokens are never masked.
        mlm_probability: Probability of masking a token.
        seed: Seed of the masks.

    Raises:
        ValueError: The tokenizer has no mask token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, mlm_probability: float, seed: int):
        super().__init__(tokenizer, mlm_probability=mlm_probability)
        self._mask_seed = seed
        # In shared memory, because dataloader workers may outlive an epoch.
        self._epoch = multiprocessing.RawValue("q", 0)

    def set_epoch(self, epoch: int) -> None:
        """Select the masks of an epoch."""
        self._epoch.value = epoch

    def with_fixed_masks(self) -> "RowMaskingCollator":
        """Return a collator with the same masks in every epoch."""
        fixed = copy(self)
        fixed._epoch = multiprocessing.RawValue("q", 0)
        return fixed

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
            self.generator = torch.Generator().manual_seed(self._row_seed(ids))
            no_special_tokens = torch.zeros_like(ids, dtype=torch.bool)
            masked[row, is_maskable], labels[row, is_maskable] = super().torch_mask_tokens(ids, no_special_tokens)
        return masked, labels

    def _row_seed(self, ids: torch.Tensor) -> int:
        key = f"{self._mask_seed} {self._epoch.value} ".encode() + ids.numpy().tobytes()
        return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


class StreamMaskingCollator:
    """Masks the rows of a stream with the pass as the epoch; a batch is masked as in the pass of its last row.

    It runs in the process that reads the rows, where the current pass is known.

    Args:
        collator: Collator of the rows.
        stream: Stream of the rows.
    """

    def __init__(self, collator: RowMaskingCollator, stream: "RowStream"):
        self._collator = collator
        self._process_collator: RowMaskingCollator | None = None
        self._stream = stream

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate the latest rows of the stream."""
        if self._process_collator is None:
            # Created in each worker: workers may be in different passes, but the epoch is in shared memory.
            self._process_collator = self._collator.with_fixed_masks()
        self._process_collator.set_epoch(self._stream.current_pass)
        return self._process_collator(rows)


@dataclass
class PairCollator(DataCollatorForSeq2Seq):
    """`DataCollatorForSeq2Seq` that adds the mask of the target tokens.

    A model infers it from labels. With label smoothing Trainer does not pass labels to the model, and padding before a target
    would be treated as tokens.
    """

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
