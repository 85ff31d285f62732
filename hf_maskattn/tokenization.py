"""The class of the tokenizers that this package trains: a fast tokenizer that also gives texts without tokens a shape."""

from typing import Any

import torch
from transformers import BatchEncoding, PreTrainedTokenizerFast


class MaskAttnTokenizer(PreTrainedTokenizerFast):
    """Fast tokenizer whose tensors have at least one position.

    Nothing is added to a text, so that an empty text has no token, and its tensors would have the shape `[1, 0]`, where
    pipelines cannot put them in a batch with others. Here it is one padding position, whose `attention_mask` is 0. Models
    of this package return for it what they return without it. Lists are as those of any fast tokenizer.

    Without this package, `AutoTokenizer` loads the same files as a `PreTrainedTokenizerFast`.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> BatchEncoding:
        """Tokenize texts; see `PreTrainedTokenizerFast`.

        Returns:
            The encoded texts. With `return_tensors="pt"` these are `[B, T]` with T >= 1.
        """
        encoded = super().__call__(*args, **kwargs)
        input_ids = encoded.get("input_ids")
        if torch.is_tensor(input_ids) and input_ids.shape[-1] == 0:
            values = {"input_ids": self.pad_token_id, "special_tokens_mask": 1}
            for name, tensor in encoded.items():
                if name == "offset_mapping":
                    encoded[name] = tensor.new_zeros(len(tensor), 1, 2)
                elif tensor.ndim == 2:
                    encoded[name] = tensor.new_full((len(tensor), 1), values.get(name, 0))
        return encoded
