"""The models that are compared: our classifier, and the baselines in plain torch, transformers and Keras."""

import os
from bisect import bisect_left
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import DistilBertConfig, DistilBertForSequenceClassification, PreTrainedModel

from hf_maskattn.benchmark.batches import NUM_LABELS, VOCAB_SIZE
from hf_maskattn.model.configuration_maskattn import MaskAttnConfig
from hf_maskattn.model.modeling_maskattn import MaskAttnForSequenceClassification

CLASSIFIER = {
    "vocab_size": VOCAB_SIZE,
    "num_labels": NUM_LABELS,
    "embedding_size": 96,
    "hidden_size": 384,
    "embedding_dropout_prob": 0.3,
    "classifier_dropout": 0.5,
}
"""A bidirectional LSTM that classifies short texts by their characters."""

WITHOUT_DROPOUT = {"embedding_dropout_prob": 0.0, "classifier_dropout": 0.0}

PAD, START, END = 0, 1, 2
"""Special token ids of `RNNSearchConfig`."""


def build_our_classifier(**changes: float) -> MaskAttnForSequenceClassification:
    """Build our classifier, with changes to its configuration and the same random weights in each call.

    Embeddings have unit scale: where tanh is nearly linear, the gradient of the bias is a difference of much larger numbers.
    """
    torch.manual_seed(0)
    return MaskAttnForSequenceClassification(MaskAttnConfig(**{**CLASSIFIER, "initializer_range": 1.0, **changes}))


class TextbookPooling(nn.Module):
    """Additive attention without queries; scores of padding are filled with minus infinity before the softmax."""

    def __init__(self, width: int, attention_size: int):
        super().__init__()
        self.bias = nn.Parameter(torch.empty(attention_size))
        self.energy = nn.Linear(attention_size, 1, bias=False)
        self.key_projection = nn.Linear(width, attention_size, bias=False)

    def forward(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Pool `[B, T, H]` to `[B, H]`."""
        scores = self.energy(torch.tanh(self.key_projection(states) + self.bias))[..., 0]  # [B, T]
        weights = scores.masked_fill(attention_mask == 0, -torch.inf).softmax(dim=-1)
        return (weights[:, None] @ states)[:, 0]


class TextbookClassifier(nn.Module):
    """The classifier of most tutorials: packed bidirectional LSTM, masked additive pooling, linear head.

    Its parameters have the order of our model.
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


def build_textbook_classifier(ours: MaskAttnForSequenceClassification) -> TextbookClassifier:
    """Build the textbook model with the weights of our model."""
    model = TextbookClassifier(ours.config)
    copy_weights(ours, model)
    return model


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy all parameters to a model that has them in the same order."""
    with torch.no_grad():
        for target_parameter, source_parameter in zip(target.parameters(), source.parameters(), strict=True):
            target_parameter.copy_(source_parameter)


def build_transformer_classifier(num_parameters: int) -> PreTrainedModel:
    """Build the smallest DistilBERT of two layers and four heads with at least `num_parameters`, with random weights."""
    num_heads = 4

    def build_config(width: int) -> DistilBertConfig:
        return DistilBertConfig(
            vocab_size=VOCAB_SIZE,
            dim=width,
            hidden_dim=4 * width,
            n_heads=num_heads,
            n_layers=2,
            num_labels=NUM_LABELS,
        )

    def count_parameters(width: int) -> int:
        with torch.device("meta"):
            return DistilBertForSequenceClassification(build_config(width)).num_parameters()

    widths = range(num_heads, num_parameters, num_heads)
    width = widths[bisect_left(widths, num_parameters, key=count_parameters)]
    torch.manual_seed(0)
    return DistilBertForSequenceClassification(build_config(width))


def build_keras_classifier(config: MaskAttnConfig) -> Any:
    """Build a Keras 3 model of the same sizes and dropout probabilities on the torch backend.

    It maps token ids `[B, T]`, 0 = padding, to logits. Its LSTM has one bias where torch has two, and its attention has the
    last state as query and no projections: it is not the same function as our model.

    Raises:
        ImportError: If keras is not installed, or has another backend than torch.
    """
    os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import keras
    except ImportError as error:
        raise ImportError("keras is not installed: pip install keras") from error
    if keras.backend.backend() != "torch":
        raise ImportError(f"the backend of keras is {keras.backend.backend()}: set KERAS_BACKEND=torch")
    layers = keras.layers
    width = config.hidden_size // 2
    input_ids = keras.Input((None,), dtype="int32")
    embedded = layers.Embedding(config.vocab_size, config.embedding_size, mask_zero=True)(input_ids)
    embedded = layers.Dropout(config.embedding_dropout_prob)(embedded)
    recurrence = layers.Bidirectional(layers.LSTM(width, return_sequences=True, return_state=True))
    states, forward, _, backward, _ = recurrence(embedded)
    query = layers.Reshape((1, 2 * width))(layers.Concatenate()([forward, backward]))
    context = layers.Flatten()(layers.AdditiveAttention()([query, states]))
    context = layers.Dropout(config.classifier_dropout)(context)
    return keras.Model(input_ids, layers.Dense(config.num_labels)(context))


class Source(NamedTuple):
    """An encoded source: annotations `[B, Tk, M]`, mask `[B, Tk]`, and keys `[B, Tk, A]` if they were computed in advance."""

    annotations: torch.Tensor
    mask: torch.Tensor
    keys: torch.Tensor | None


class StepwiseAttention(nn.Module):
    """Additive attention from one query."""

    def __init__(self, query_size: int, memory_size: int, attention_size: int):
        super().__init__()
        self.energy = nn.Linear(attention_size, 1, bias=False)
        self.query_projection = nn.Linear(query_size, attention_size, bias=False)
        self.key_projection = nn.Linear(memory_size, attention_size, bias=False)

    def forward(self, query: torch.Tensor, source: Source) -> torch.Tensor:
        """Compute the context `[B, M]`."""
        keys = self.key_projection(source.annotations) if source.keys is None else source.keys  # [B, Tk, A]
        scores = self.energy(torch.tanh(self.query_projection(query)[:, None] + keys))[..., 0]  # [B, Tk]
        weights = scores.masked_fill(~source.mask, -torch.inf).softmax(dim=-1)
        return torch.bmm(weights[:, None], source.annotations)[:, 0]


class StepwiseRNNSearch(nn.Module):
    """RNNsearch as tutorials write it: a packed encoder, then attention and a GRU cell in a loop over target tokens.

    It computes the function of our model with one GRU layer on either side, tied embeddings and the maxout output. Its
    parameters have the order of our model.

    Args:
        vocab_size: Size V of the vocabulary.
        embedding_size: Size E of an embedding and of the maxout layer.
        units: Units H in each direction of the encoder, in the decoder and in the attention; an annotation has M = 2 H.
        precompute_keys: Whether the keys of a source are computed once, or in each step as in most tutorials.
    """

    def __init__(self, *, vocab_size: int, embedding_size: int, units: int, precompute_keys: bool):
        super().__init__()
        self.precompute_keys = precompute_keys
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        self.encoder = nn.GRU(embedding_size, units, batch_first=True, bidirectional=True)
        self.initial_state = nn.Linear(units, units)
        self.attention = StepwiseAttention(units, 2 * units, units)
        self.cell = nn.GRUCell(embedding_size + 2 * units, units)
        self.output = nn.Linear(units + embedding_size + 2 * units, 2 * embedding_size)
        self.vocabulary = nn.Linear(embedding_size, vocab_size)
        self.vocabulary.weight = self.embedding.weight

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, decoder_input_ids: torch.Tensor) -> torch.Tensor:
        """Compute logits `[B, T, V]` for targets `[B, T]` of right-padded sources; the output layer runs once."""
        source, state = self.encode(input_ids, attention_mask)
        embedded = self.embedding(decoder_input_ids)  # [B, T, E]
        states, contexts = [], []
        for step_embedded in embedded.unbind(dim=1):
            context = self.attention(state, source)
            state = self.cell(torch.cat([step_embedded, context], dim=-1), state)
            states.append(state)
            contexts.append(context)
        return self.compute_logits(torch.stack(states, dim=1), embedded, torch.stack(contexts, dim=1))

    def encode(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[Source, torch.Tensor]:
        """Encode right-padded sources `[B, Tk]`: annotations, and the initial state of the decoder `[B, H]`."""
        lengths = attention_mask.sum(dim=1).cpu()
        packed = pack_padded_sequence(self.embedding(input_ids), lengths, batch_first=True, enforce_sorted=False)
        packed, last = self.encoder(packed)
        annotations = pad_packed_sequence(packed, batch_first=True)[0]  # [B, Tk, M]
        keys = self.attention.key_projection(annotations) if self.precompute_keys else None
        return Source(annotations, attention_mask.bool(), keys), torch.tanh(self.initial_state(last[1]))

    def compute_logits(self, states: torch.Tensor, embedded: torch.Tensor, contexts: torch.Tensor) -> torch.Tensor:
        """Compute logits `[..., V]` from states, embeddings of the previous tokens and contexts, `[..., width]` each."""
        projected = self.output(torch.cat([states, embedded, contexts], dim=-1))
        return self.vocabulary(torch.maximum(*projected.chunk(2, dim=-1)))

    def step(self, tokens: torch.Tensor, state: torch.Tensor, source: Source) -> tuple[torch.Tensor, torch.Tensor]:
        """Process one token `[B]` of each row: logits `[B, V]` and the next state."""
        embedded, context = self.embedding(tokens), self.attention(state, source)
        state = self.cell(torch.cat([embedded, context], dim=-1), state)
        return self.compute_logits(state, embedded, context), state

    @torch.inference_mode()
    def greedy_search(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, max_tokens: int) -> torch.Tensor:
        """Select the most likely token in each step: ids `[B, T]`, T <= `max_tokens`."""
        source, state = self.encode(input_ids, attention_mask)
        tokens = input_ids.new_full((len(input_ids),), START)
        is_finished = torch.zeros_like(tokens, dtype=torch.bool)
        sequences = []
        for _ in range(max_tokens):
            logits, state = self.step(tokens, state, source)
            tokens = logits.argmax(dim=-1).masked_fill(is_finished, PAD)
            sequences.append(tokens)
            is_finished |= tokens == END
            if is_finished.all():
                break
        return torch.stack(sequences, dim=1)

    @torch.inference_mode()
    def beam_search(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, max_tokens: int, num_beams: int
    ) -> torch.Tensor:
        """Search for the most likely target of at most `max_tokens`: ids `[B, T]`. Finished beams continue with padding."""
        source, state = self.encode(input_ids, attention_mask)
        keys = None if source.keys is None else source.keys.repeat_interleave(num_beams, dim=0)
        source = Source(
            annotations=source.annotations.repeat_interleave(num_beams, dim=0),
            mask=source.mask.repeat_interleave(num_beams, dim=0),
            keys=keys,
        )
        state = state.repeat_interleave(num_beams, dim=0)  # [B * beams, H]
        batch_size = len(input_ids)
        tokens = input_ids.new_full((batch_size * num_beams,), START)
        is_finished = torch.zeros_like(tokens, dtype=torch.bool)
        beam_scores = torch.full((batch_size, num_beams), -torch.inf, device=state.device)
        beam_scores[:, 0] = 0  # all beams of a row are equal in the first step
        row_offset = torch.arange(batch_size, device=state.device)[:, None] * num_beams
        sequences = tokens.new_empty(batch_size * num_beams, 0)
        for _ in range(max_tokens):
            logits, state = self.step(tokens, state, source)
            scores = logits.log_softmax(dim=-1)  # [B * beams, V]
            scores[is_finished] = -torch.inf
            scores[is_finished, PAD] = 0
            vocab_size = scores.shape[-1]
            candidates = (beam_scores[..., None] + scores.view(batch_size, num_beams, -1)).flatten(1)  # [B, beams * V]
            beam_scores, indices = candidates.topk(num_beams)  # [B, beams]
            parent = (row_offset + indices // vocab_size).flatten()
            tokens = (indices % vocab_size).flatten()
            state = state[parent]
            sequences = torch.cat([sequences[parent], tokens[:, None]], dim=1)
            is_finished = is_finished[parent] | (tokens == END)
            if is_finished.all():
                break
        return sequences[row_offset[:, 0]]
