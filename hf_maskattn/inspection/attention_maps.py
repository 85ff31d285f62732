"""Attention weights of a model for texts, with their tokens."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class AttentionMap:
    """The attention weights of one text in a padded batch.

    Attributes:
        tokens: The tokens of its row, with padding.
        mask: `[T]`, bool, True = token.
        weights: `[T]`, float, mean over heads.
    """

    tokens: list[str]
    mask: torch.Tensor
    weights: torch.Tensor

    @property
    def weight_on_padding(self) -> float:
        """Sum of the weights of padding positions."""
        return float(self.weights[~self.mask].sum())

    @property
    def mass_on_pads(self) -> float:
        """Deprecated alias of `weight_on_padding`."""
        warnings.warn("`mass_on_pads` is deprecated. Use `weight_on_padding`.", FutureWarning, stacklevel=2)
        return self.weight_on_padding


@torch.no_grad()
def attention_maps(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, ignore_mask: bool = False
) -> list[AttentionMap]:
    """Compute the attention weights for a batch of texts, padded to the longest.

    Args:
        model: An encoder of this package.
        tokenizer: Its tokenizer.
        texts: The texts.
        ignore_mask: Whether to pass a mask of ones, so that the model treats padding as tokens.

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
    """The alignment of a source with its generated target.

    Attributes:
        source: The n tokens of the source, with its end token.
        target: The m tokens of the target, up to its end token.
        weights: `[m, n]`, float: attention weights of each target token on the source, mean over heads.
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
    """Compute the alignments of sources with generated targets, from the last layer that attends to the source.

    Args:
        model: An encoder-decoder.
        tokenizer: Its tokenizer.
        inputs: `input_ids` and `attention_mask` `[B, Tk]` of the sources.
        sequences: `[B, T]`, the targets as `generate()` returns them.

    Returns:
        A map for each source.

    Raises:
        ValueError: If the model returns no cross-attention weights.
    """
    was_training = model.training
    outputs = model.eval()(**inputs, decoder_input_ids=sequences[:, :-1], output_attentions=True, use_cache=False)
    model.train(was_training)
    attentions = outputs.get("cross_attentions")
    if not attentions or attentions[-1] is None:
        raise ValueError(f"`model` must return `cross_attentions`, got {type(model).__name__}.")
    num_heads = attentions[-1].shape[1]
    weights = attentions[-1].float().mean(dim=1).cpu()  # [B, T - 1, Tk]
    eos_ids, pad_id = model.generation_config.eos_token_id, model.generation_config.pad_token_id
    eos_ids = set(eos_ids) if isinstance(eos_ids, list) else {eos_ids}
    source_ids, mask = inputs["input_ids"].cpu(), inputs["attention_mask"].bool().cpu()
    maps = []
    for row, target_ids in enumerate(sequences[:, 1:].tolist()):
        length = _target_length(target_ids, eos_ids, pad_id)
        maps.append(
            AlignmentMap(
                source=readable_tokens(tokenizer, source_ids[row, mask[row]].tolist()),
                target=readable_tokens(tokenizer, target_ids[:length]),
                weights=weights[row, :length, mask[row]],
                num_heads=num_heads,
            )
        )
    return maps


def readable_tokens(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Decode each token by itself, so that tokens of a byte-level tokenizer are readable.

    Args:
        tokenizer: The tokenizer.
        ids: Token ids.

    Returns:
        The decoded tokens; a space, or a token that is not a complete character, is returned as the tokenizer stores it.
    """
    tokens = tokenizer.convert_ids_to_tokens(list(ids))
    decoded = [tokenizer.decode([id_], clean_up_tokenization_spaces=False) for id_ in ids]
    return [text if text.strip() and "\ufffd" not in text else token for text, token in zip(decoded, tokens, strict=True)]


def _target_length(ids: list[int], eos_ids: set[int | None], pad_id: int | None) -> int:
    """Count the tokens up to the end token or, if there is none, without the padding at the end."""
    for length, id_ in enumerate(ids, start=1):
        if id_ in eos_ids:
            return length
    return max((length for length, id_ in enumerate(ids, start=1) if id_ != pad_id), default=0)
