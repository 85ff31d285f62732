"""Texts that an encoder-decoder writes for texts, batch by batch; transformers 5 has no pipeline for that."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_maskattn.data.encoding import count_truncated_tokens
from hf_maskattn.inspection.attention_maps import AlignmentMap, alignment_maps
from hf_maskattn.metrics.text import decode_texts


@dataclass(frozen=True)
class Written:
    """What a model wrote for a text.

    Attributes:
        texts: As many as its `generation_config.num_return_sequences`, the best one first.
        alignment: How the first is aligned with the text, if that was asked for.
        cut_tokens: Number of tokens of the source that were cut off.
    """

    texts: list[str]
    alignment: AlignmentMap | None
    cut_tokens: int = 0


def write_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    batch_size: int,
    max_length: int | None = None,
    with_alignment: bool = False,
) -> Iterator[Written]:
    """Have a model write as its `generation_config` says, on the accelerator if there is one.

    Args:
        model: An encoder-decoder.
        tokenizer: Its tokenizer.
        texts: The texts.
        batch_size: Number of texts that go through the model together, padded to the longest of them.
        max_length: Largest number of tokens of a text, with those that the tokenizer adds; `None` cuts nothing.
        with_alignment: Whether to return the alignments.

    Yields:
        What was written for each text, in order.
    """
    device = torch.accelerator.current_accelerator(check_available=True)
    if device is not None:
        model.to(device)
    for start in range(0, len(texts), batch_size):
        batch = list(texts[start : start + batch_size])
        inputs = tokenizer(
            batch,
            padding=True,
            truncation=max_length is not None,
            max_length=max_length,
            return_token_type_ids=False,
            return_tensors="pt",
            verbose=False,  # or it would warn of texts that are longer than those of the training
        ).to(model.device)
        sequences = model.generate(**inputs, tokenizer=tokenizer, return_dict_in_generate=False)
        sequences = sequences.unflatten(0, (len(batch), -1))  # [B, outputs, T]
        maps = alignment_maps(model, tokenizer, inputs, sequences[:, 0]) if with_alignment else [None] * len(batch)
        for rows, alignment, cut_tokens in zip(sequences.tolist(), maps, count_truncated_tokens(inputs), strict=True):
            yield Written(decode_texts(tokenizer, rows), alignment, cut_tokens)
