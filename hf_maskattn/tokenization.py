"""Tokenizer class of this package: a fast tokenizer whose tensors are never empty."""

from typing import Any

import torch
from transformers import BatchEncoding, PreTrainedTokenizerFast


class MaskAttnTokenizer(PreTrainedTokenizerFast):
    """Fast tokenizer whose tensors have at least one position.

    No special tokens are added to a text, so the tensors of an empty text would have the shape `[1, 0]`, which pipelines
    cannot batch. This class returns one padding position, whose `attention_mask` is 0. Models of this package return the same
    outputs for it as without it. Lists are unchanged.

    Without this package, `AutoTokenizer` loads the same files as a `PreTrainedTokenizerFast`.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> BatchEncoding:
        """Tokenize texts; see `PreTrainedTokenizerFast`.

        Returns:
            The encoded texts; with `return_tensors="pt"`, tensors `[B, T]` with T >= 1.
        """
        encoded = super().__call__(*args, **kwargs)
        input_ids = encoded.get("input_ids")
        if torch.is_tensor(input_ids) and input_ids.shape[-1] == 0:
            padding_values = {"input_ids": self.pad_token_id, "special_tokens_mask": 1}
            for name, tensor in encoded.items():
                if name == "offset_mapping":
                    encoded[name] = tensor.new_zeros(len(tensor), 1, 2)
                elif tensor.ndim == 2:
                    encoded[name] = tensor.new_full((len(tensor), 1), padding_values.get(name, 0))
        return encoded
