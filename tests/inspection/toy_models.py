"""A small recurrent encoder that handles padding correctly, and variants with one fault each."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput


class ToyConfig(PreTrainedConfig):
    model_type = "toy"
    vocab_size: int = 30


@dataclass
class ToyOutput(ModelOutput):
    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class Correct(PreTrainedModel):
    config_class = ToyConfig
    base_model_prefix = "toy"

    def __init__(self):
        super().__init__(ToyConfig())
        self.embeddings = nn.Embedding(30, 8)
        self.rnn = nn.GRU(8, 4, batch_first=True, bidirectional=True)
        self.query = nn.Linear(8, 1)
        self.post_init()

    def _init_weights(self, module):
        pass

    def get_input_embeddings(self):
        return self.embeddings

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None):
        embedded = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        mask = attention_mask.bool()
        embedded = self.clean(embedded, mask)
        states = self.normalize(self.recurrence(embedded, mask), mask)
        weights = self.weigh(self.query(states)[..., 0], mask)  # [B, T]
        pooled = (weights[..., None] * states).sum(dim=1) + self.mean(embedded, mask)
        return ToyOutput(states, pooled, (weights[:, None, None],))

    def clean(self, embedded, mask):
        return embedded.masked_fill(~mask[..., None], 0)

    def recurrence(self, embedded, mask):
        states = torch.zeros_like(embedded)
        for row, row_mask in enumerate(mask):
            if row_mask.any():
                states = states.index_put(
                    (torch.tensor(row), row_mask.nonzero()[:, 0]),
                    self.rnn(embedded[row, row_mask][None])[0][0].to(states.dtype),
                )
        return states

    def normalize(self, states, mask):
        return states

    def weigh(self, scores, mask):
        lowest = torch.finfo(scores.dtype).min
        return scores.masked_fill(~mask, lowest).softmax(dim=1).masked_fill(~mask, 0)

    def mean(self, embedded, mask):
        return embedded.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


class IgnoresMaskInRecurrence(Correct):
    def recurrence(self, embedded, mask):
        return self.rnn(embedded)[0]


class IgnoresMaskInPooling(Correct):
    def weigh(self, scores, mask):
        return scores.softmax(dim=1)


class ZeroesAfterSoftmax(Correct):
    def weigh(self, scores, mask):
        return scores.softmax(dim=1).masked_fill(~mask, 0)


class MultipliesByMask(Correct):
    def clean(self, embedded, mask):
        return embedded * mask[..., None]


class NormalizesOverTheBatch(Correct):
    def normalize(self, states, mask):
        tokens = states[mask]
        return ((states - tokens.mean(dim=0)) / (tokens.var(dim=0, correction=0) + 0.1)).masked_fill(~mask[..., None], 0)


class ReadsThePreviousRow(Correct):
    def normalize(self, states, mask):
        return states + states.roll(1, dims=0).sum(dim=1, keepdim=True).masked_fill(~mask[..., None], 0)


class ReadsIdsUnderTheMask(Correct):
    """Derives the mask from the pad id, a common mistake."""

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None):
        return super().forward(input_ids, input_ids != 0 if inputs_embeds is None else attention_mask, inputs_embeds)


class LeaksGradients(Correct):
    """Has the outputs of the correct model; only the backward pass depends on padding."""

    def mean(self, embedded, mask):
        return super().mean(embedded, mask) + (embedded - embedded.detach()).sum(dim=1)

    def clean(self, embedded, mask):
        padding = embedded.masked_fill(mask[..., None], 0)
        return super().clean(embedded, mask) + (padding - padding.detach())


class DividesByZeroInEmptyRows(Correct):
    def mean(self, embedded, mask):
        return embedded.sum(dim=1) / mask.sum(dim=1, keepdim=True)


class RefusesHoles(Correct):
    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None):
        if (attention_mask.diff(dim=1) > 0).any():
            raise ValueError("only right padding\nis supported")
        return super().forward(input_ids, attention_mask, inputs_embeds)


class TakesNoMask(Correct):
    def forward(self, input_ids=None):
        return super().forward(input_ids, torch.ones_like(input_ids))


class RunsOutOfMemory(Correct):
    """Raises an error for batches that are not right-padded."""

    error: Exception

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None):
        if (attention_mask.diff(dim=1) > 0).any():
            raise self.error
        return super().forward(input_ids, attention_mask, inputs_embeds)
