"""How a model attends: whether its weights differ from a mean, and whether its scores can still be trained."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from hf_maskattn.model.losses import IGNORED

MEAN_ENTROPY = 0.98
"""Normalized entropy above which weights are those of a mean."""


@dataclass(frozen=True)
class AttentionStatistics:
    """Statistics of additive attention over some rows.

    Attributes:
        entropy: Normalized entropy of the weights, -sum(w ln w) / ln(n) for n tokens: 0 if one token has all the weight, 1 if
            all have the same. Mean over rows, heads and, for an encoder-decoder, target tokens. Rows of one token are left out;
            None if there are no others.
        tanh_derivative: 1 - tanh(W q + U h)^2, the mean over all tokens and units: near 0 the scores are saturated, and no
            gradient reaches what is below them. None if there is no token.
        rows: Number of rows.
    """

    entropy: float | None
    tanh_derivative: float | None
    rows: int

    @property
    def is_mean(self) -> bool:
        """Whether the weights are those of a mean over the tokens."""
        return self.entropy is not None and self.entropy > MEAN_ENTROPY

    def describe(self) -> str:
        """Describe the statistics in sentences for readers who do not know them."""
        sentences = []
        if self.entropy is not None:
            sentences.append(
                f"The normalized entropy of the weights is {self.entropy:.3f} (0: one token has all, 1: all have equal weight)."
            )
        if self.is_mean:
            sentences.append("The attention is a mean: all tokens of a row have nearly the same weight.")
        if self.tanh_derivative is not None:
            sentences.append(f"The mean derivative of tanh in the scores is {self.tanh_derivative:.3f} (near 0: saturated).")
        return " ".join(sentences)


@torch.no_grad()
def attention_statistics(model: PreTrainedModel, batches: Iterable[Mapping[str, torch.Tensor]]) -> AttentionStatistics:
    """Measure the attention of a model, in evaluation mode.

    Args:
        model: A model of this package, with or without a head. An encoder-decoder needs its head.
        batches: `input_ids` and `attention_mask` `[B, T]` and, for an encoder-decoder, the `labels` of teacher forcing.

    Returns:
        The statistics. For an encoder-decoder they are those of its decoder.
    """
    observe = _observe_decoder if model.config.is_encoder_decoder else _observe_pooling
    was_training = model.training
    model.eval()
    entropies: list[torch.Tensor] = []
    derivatives: list[torch.Tensor] = []
    num_rows = 0
    for batch in batches:
        for weights, activations in observe(model, {name: value.to(model.device) for name, value in batch.items()}):
            num_rows += 1
            if weights.shape[-1] > 1:
                entropies.append(normalized_entropy(weights).flatten())
            derivatives.append((1 - activations.float() ** 2).mean(dim=-1).flatten())
    model.train(was_training)
    return AttentionStatistics(_mean(entropies), _mean(derivatives), num_rows)


def normalized_entropy(weights: torch.Tensor) -> torch.Tensor:
    """Compute -sum(w ln w) / ln(n) of weights `[..., n]` that sum to one, n >= 2: `[...]`, float32, in 0..1."""
    weights = weights.float()
    return -torch.special.xlogy(weights, weights).sum(dim=-1) / torch.tensor(weights.shape[-1]).log()


def _observe_pooling(model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Observe the pooling of each row of n tokens: weights `[heads, 1, n]` and activations `[1, n, A]`."""
    encoder, mask = model.base_model, batch["attention_mask"].bool()
    outputs = encoder(batch["input_ids"], mask, output_attentions=True)
    memory = outputs.last_hidden_state
    activations = encoder.pooling.activations(memory, mask, encoder.recurrence.last_state(memory, mask))  # [B, 1, T, A]
    for row, is_token in enumerate(mask):
        yield outputs.attentions[0][row][..., is_token], activations[row][:, is_token]


def _observe_decoder(model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Observe the decoder of each row of m target and n source tokens: weights `[heads, m, n]` and activations `[m, n, A]`.

    With the query "previous" there are no activations of the first step, whose query is the initial state.
    """
    outputs = model(**batch, output_attentions=True, output_hidden_states=True)
    is_source, is_target = batch["attention_mask"].bool(), batch["labels"] != IGNORED
    for row, source in enumerate(is_source):
        weights = outputs.cross_attentions[0][row][:, is_target[row]][..., source]
        queries = outputs.decoder_hidden_states[1][row][is_target[row]]  # [m, H], the states of the layer that attends
        if model.config.attention_query == "previous":
            queries = queries[:-1]
        memory = outputs.encoder_last_hidden_state[row][source]  # [n, H]
        # Row by row: for a batch the activations of all pairs may not fit into memory.
        yield weights, model.base_model.decoder.attention.activations(queries[None], memory[None])[0]


def _mean(values: list[torch.Tensor]) -> float | None:
    joined = torch.cat(values) if values else torch.empty(0)
    return joined.mean().item() if len(joined) else None
