"""Attention weights of a model over texts, beside their tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class AttentionMap:
    """Where the attention of one text goes in a padded batch.

    Attributes:
        tokens: The tokens of its row, pads included.
        mask: `[T]`, bool, True where a token is real.
        weights: `[T]`, float, mean over heads.
    """

    tokens: list[str]
    mask: torch.Tensor
    weights: torch.Tensor

    @property
    def mass_on_pads(self) -> float:
        """Share of the attention that goes to pads."""
        return float(self.weights[~self.mask].sum())


@torch.no_grad()
def attention_maps(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, ignore_mask: bool = False
) -> list[AttentionMap]:
    """Read the attention of a model over a batch of texts, padded to the longest.

    Args:
        model: A model of this package.
        tokenizer: Its tokenizer.
        texts: The texts.
        ignore_mask: Whether to tell the model that pads are real, as a model without a mask takes them.

    Returns:
        A map for each text.
    """
    inputs = tokenizer(list(texts), padding=True, return_tensors="pt").to(model.device)
    mask = inputs["attention_mask"].bool()
    if ignore_mask:
        inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"])
    was_training = model.training
    attentions = model.eval()(**inputs, output_attentions=True).attentions[0]  # [B, heads, 1, T]
    model.train(was_training)
    weights = attentions[:, :, 0].float().mean(dim=1).cpu()  # [B, T]
    tokens = [tokenizer.convert_ids_to_tokens(ids) for ids in inputs["input_ids"].tolist()]
    return [AttentionMap(*row) for row in zip(tokens, mask.cpu(), weights, strict=True)]


@dataclass(frozen=True)
class AlignmentMap:
    """The alignment of one source and its output.

    Attributes:
        source: The real tokens of the source, n of them, its end token included.
        target: The tokens of the output, m of them, up to its end token.
        weights: `[m, n]`, float: how the output token of a row read the source. Mean over heads.
        num_heads: Number of heads.

    Source:
        Bahdanau et al. 2015 (arXiv:1409.0473), figure 3.
    """

    source: list[str]
    target: list[str]
    weights: torch.Tensor
    num_heads: int


@torch.no_grad()
def alignment_maps(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    inputs: Mapping[str, torch.Tensor],
    sequences: torch.Tensor,
) -> list[AlignmentMap]:
    """Read how outputs are aligned with their sources, of the last layer that attends to the source.

    Args:
        model: An encoder-decoder.
        tokenizer: Its tokenizer.
        inputs: `input_ids` and `attention_mask` `[B, Tk]` of the sources, as the model takes them.
        sequences: `[B, T]`, the outputs, as `generate()` returns them.

    Returns:
        A map for each source.

    Raises:
        ValueError: If the model gives no weights of attention to the source.
    """
    was_training = model.training
    outputs = model.eval()(**inputs, decoder_input_ids=sequences[:, :-1], output_attentions=True, use_cache=False)
    model.train(was_training)
    attentions = outputs.get("cross_attentions")
    if not attentions or attentions[-1] is None:
        raise ValueError(f"{type(model).__name__} gives no cross_attentions: an alignment needs attention to the source.")
    weights = attentions[-1].float()  # [B, heads, T - 1, Tk]
    ends, pad = model.generation_config.eos_token_id, model.generation_config.pad_token_id
    ends = set(ends) if isinstance(ends, list) else {ends}
    maps = []
    rows = (inputs["input_ids"].cpu(), inputs["attention_mask"].bool().cpu(), sequences[:, 1:].tolist(), weights.cpu())
    for ids, real, words, maps_of_heads in zip(*rows, strict=True):
        length = _length(words, ends, pad)
        maps.append(
            AlignmentMap(
                readable_tokens(tokenizer, ids[real].tolist()),
                readable_tokens(tokenizer, words[:length]),
                maps_of_heads.mean(dim=0)[:length, real],
                weights.shape[1],
            )
        )
    return maps


def readable_tokens(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Write tokens one by one so that a reader knows them, also where a tokenizer writes them as bytes.

    Args:
        tokenizer: The tokenizer.
        ids: Their ids.

    Returns:
        What each decodes to; a token that is no whole sign, or a space, as the tokenizer writes it.
    """
    tokens = tokenizer.convert_ids_to_tokens(list(ids))
    decoded = [tokenizer.decode([number], clean_up_tokenization_spaces=False) for number in ids]
    return [text if text.strip() and "\ufffd" not in text else token for text, token in zip(decoded, tokens, strict=True)]


def _length(words: list[int], ends: set[int | None], pad: int | None) -> int:
    """Count the tokens of an output up to its end token or, where it was cut, to its last one that is no pad."""
    for place, word in enumerate(words, start=1):
        if word in ends:
            return place
    return max((place for place, word in enumerate(words, start=1) if word != pad), default=0)
