"""Attention weights of a model over texts, beside their tokens."""

from collections.abc import Sequence
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
