"""Classifiers of text: ours as the recipe `language_identification` has it, the textbook's, and a small transformer."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import DistilBertConfig, DistilBertForSequenceClassification, PreTrainedModel

from hf_maskattn.model.configuration_maskattn import MaskAttnConfig
from hf_maskattn.model.modeling_maskattn import MaskAttnForSequenceClassification

VOCAB_SIZE, NUM_LABELS = 1000, 30
RECIPE = {
    "vocab_size": VOCAB_SIZE,
    "num_labels": NUM_LABELS,
    "embedding_size": 96,
    "hidden_size": 384,
    "embedding_dropout_prob": 0.3,
    "classifier_dropout": 0.5,
}
"""The model of `configs/language_identification.yaml`."""

WITHOUT_DROPOUT = {"embedding_dropout_prob": 0.0, "classifier_dropout": 0.0}
_HEADS, _LAYERS = 4, 2


def our_classifier(**changes: float) -> MaskAttnForSequenceClassification:
    """Build our model of the recipe with random weights, the same at every call."""
    torch.manual_seed(0)
    return MaskAttnForSequenceClassification(MaskAttnConfig(**{**RECIPE, **changes}))


class TextbookPooling(nn.Module):
    """Additive attention from a learned query, pads filled with minus infinity before the softmax."""

    def __init__(self, width: int, attention_size: int):
        super().__init__()
        self.query = nn.Parameter(torch.empty(width))
        self.energy = nn.Linear(attention_size, 1, bias=False)
        self.query_projection = nn.Linear(width, attention_size, bias=False)
        self.key_projection = nn.Linear(width, attention_size, bias=False)

    def forward(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Pool `[B, T, H]` to `[B, H]`."""
        scores = self.energy(torch.tanh(self.query_projection(self.query) + self.key_projection(states)))[..., 0]  # [B, T]
        weights = scores.masked_fill(attention_mask == 0, -torch.inf).softmax(dim=-1)
        return (weights[:, None] @ states)[:, 0]


class TextbookClassifier(nn.Module):
    """The classifier that tutorials write: packed bidirectional LSTM, masked additive pooling, linear head.

    Its parameters stand in the order of our model.

    Args:
        config: Sizes and dropouts of our model.
    """

    def __init__(self, config: MaskAttnConfig):
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout_prob)
        self.rnn = nn.LSTM(config.embedding_size, config.hidden_size // 2, batch_first=True, bidirectional=True)
        self.pooling = TextbookPooling(config.hidden_size, config.attention_size)
        self.dropout = nn.Dropout(config.classifier_dropout or 0.0)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Classify right-padded rows `[B, T]`: logits `[B, num_labels]`."""
        embedded = self.embedding_dropout(self.embedding(input_ids))
        lengths = attention_mask.sum(dim=1).cpu()
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        states = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]  # [B, T, H]
        return self.classifier(self.dropout(self.pooling(states, attention_mask)))


def textbook_classifier(ours: MaskAttnForSequenceClassification) -> TextbookClassifier:
    """Build the textbook's model with the weights of ours."""
    model = TextbookClassifier(ours.config)
    with torch.no_grad():
        for parameter, own in zip(model.parameters(), ours.parameters(), strict=True):
            parameter.copy_(own)
    return model


def transformer_classifier(parameters: int) -> PreTrainedModel:
    """Build the smallest DistilBERT of two layers and four heads that has as many parameters, with random weights."""
    torch.manual_seed(0)
    for width in range(_HEADS, parameters, _HEADS):
        config = DistilBertConfig(
            vocab_size=VOCAB_SIZE,
            dim=width,
            hidden_dim=4 * width,
            n_heads=_HEADS,
            n_layers=_LAYERS,
            num_labels=NUM_LABELS,
        )
        if _count(config) >= parameters:
            break
    return DistilBertForSequenceClassification(config)


def _count(config: DistilBertConfig) -> int:
    with torch.device("meta"):
        return DistilBertForSequenceClassification(config).num_parameters()
