"""Pads pairs of a source and a target to a batch, for models whose decoder reads no padding."""

from dataclasses import dataclass
from typing import Any

from transformers import DataCollatorForSeq2Seq


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
