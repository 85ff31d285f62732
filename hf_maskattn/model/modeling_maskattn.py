"""The masked recurrent encoder and its heads, as Hugging Face models.

input_ids + attention_mask -> embeddings -> masked recurrence -> masked additive attention -> head
"""

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils.generic import can_return_tuple

# After a download that broke, transformers looks again only for the files that this one names: it names all (F401).
from .attention import AttentionPooling
from .cells import CellLayout  # noqa: F401
from .checkpoint_code import carry_code_above_checkpoint  # noqa: F401
from .chunked_attention import chunked_attention  # noqa: F401
from .code_version import is_newer_than_this_code  # noqa: F401
from .configuration_checks import check_widths  # noqa: F401
from .configuration_maskattn import AUTO_MAP, MaskAttnConfig
from .eager_attention import weighted_sum
from .gate_steps import gru_step  # noqa: F401
from .gradient_path import TensorRecorder, compute_from
from .gru_gradient import gru_over_cells  # noqa: F401
from .initialization import recurrent_weight  # noqa: F401
from .losses import classification_loss, elementwise_loss
from .masking import RealColumns, real_columns
from .modeling_recurrent import RecurrentPreTrainedModel
from .precision import at_least_float32  # noqa: F401
from .ragged_attention import ragged_attention  # noqa: F401
from .real_tokens import over_real_tokens
from .recurrence import MaskedRecurrence
from .recurrence_operator import recurrence_operator  # noqa: F401
from .recurrent_kernel import arrange  # noqa: F401
from .segments import Segment  # noqa: F401
from .softmax import masked_softmax  # noqa: F401
from .tanh import tanh  # noqa: F401
from .tensor_checks import host_can_read  # noqa: F401


class MaskAttnPreTrainedModel(RecurrentPreTrainedModel):
    """What the encoder and its heads share."""

    config: MaskAttnConfig
    all_auto_classes = AUTO_MAP
    base_model_prefix = "maskattn"
    _no_split_modules = ["RecurrentLayer", "AttentionPooling"]  # noqa: RUF012

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, AttentionPooling) and module.query is not None:
            init.normal_(module.query)
        elif isinstance(module, ScoreNorm):
            init.constant_(module.weight, module.weight.shape[0] ** -0.5)
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    def _encode(
        self, input_ids, inputs_embeds, attention_mask, lengths, **kwargs
    ) -> tuple[BaseModelOutputWithPooling, torch.Tensor, RealColumns]:
        """Run the encoder of a head over the columns that have a real token.

        Returns:
            Its outputs over these columns, but hidden states and attentions over all; the mask `[B, T]`; the columns.
        """
        mask = self._real_tokens(input_ids, inputs_embeds, attention_mask, lengths)
        columns = real_columns(mask)
        requests = [kwargs.get(name) for name in ("output_hidden_states", "output_attentions")]
        defaults = [self.config.output_hidden_states, self.config.output_attentions]
        if any(default if request is None else request for request, default in zip(requests, defaults, strict=True)):
            # Widened here, hidden states and attentions would be copies that no output depends on: the encoder widens them.
            outputs = self.maskattn(input_ids, mask, inputs_embeds=inputs_embeds, return_dict=True, **kwargs)
            outputs.last_hidden_state = columns.cut(outputs.last_hidden_state)
            return outputs, mask, columns
        ids, embeds = (None if inputs is None else columns.cut(inputs) for inputs in (input_ids, inputs_embeds))
        outputs = self.maskattn(ids, columns.cut(mask), inputs_embeds=embeds, return_dict=True, **kwargs)
        return outputs, mask, columns

    def _loss_of_tokens(self, logits, labels, num_items_in_batch, mask, columns) -> torch.Tensor:
        """Average the cross entropy of logits over the real columns and labels `[B, T]`."""
        if labels.shape != mask.shape:
            raise ValueError(f"`labels` has shape {list(labels.shape)}, expected {list(mask.shape)}.")
        return classification_loss(logits, columns.cut(labels), num_items_in_batch, columns.cut(mask))


class MaskAttnModel(MaskAttnPreTrainedModel):
    """The encoder: states of every token, and one vector for the sequence by additive attention over its real tokens."""

    def __init__(self, config: MaskAttnConfig):
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.embedding_size)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout_prob)
        self.recurrence = MaskedRecurrence(
            input_size=config.embedding_size,
            hidden_size=config.hidden_size,
            num_layers=config.num_hidden_layers,
            rnn_type=config.rnn_type,
            bidirectional=config.bidirectional,
            dropout=config.hidden_dropout_prob,
        )
        self.pooling = AttentionPooling(
            query=config.attention_query,
            memory_size=config.hidden_size,
            attention_size=config.attention_size,
            num_heads=config.num_attention_heads,
            dropout=config.attention_dropout_prob,
            implementation=config.attention_implementation,
        )
        self.post_init()

    def get_input_embeddings(self):
        return self.word_embeddings

    def set_input_embeddings(self, value):
        self.word_embeddings = value

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
        num_segments: int | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        """Encode a batch.

        Args:
            input_ids: `[B, T]`, int, token ids.
            attention_mask: `[B, T]`, 1 = real token, 0 = padding, in any arrangement; None means that all are real.
            token_type_ids: Accepted from BERT tokenizers; the model does not tell segments apart.
            inputs_embeds: `[B, T, embedding_size]`, instead of `input_ids`.
            lengths: `[B]`, int, real tokens of each right-padded row, instead of `attention_mask`.
            num_segments: Parts that time is cut into in the recurrence; None takes what costs least. The results are the
                same up to rounding.
            output_attentions: Whether to return the attention weights.
            output_hidden_states: Whether to return the embeddings and the states of every layer.
            **kwargs: Accepted as by every transformers model.

        Returns:
            `last_hidden_state` `[B, T, H]`, 0 at pads; `pooler_output` `[B, H]`, the context, 0 for a row without a real
            token; `attentions`, one map `[B, heads, 1, T]`, exactly 0 at pads; `hidden_states`, `num_hidden_layers + 1`
            tensors, 0 at pads. Gradients reach them all: the outputs are computed from these very tensors.

        Raises:
            ValueError: If the inputs do not fit each other, or a token id is outside of the vocabulary.
        """
        mask = self._real_tokens(input_ids, inputs_embeds, attention_mask, lengths)
        columns = real_columns(mask)
        mask = columns.cut(mask)
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        embedded = self._embedded(input_ids, inputs_embeds, mask, columns, self.word_embeddings)  # [B, T, E]
        hidden_states = TensorRecorder(columns) if output_hidden_states else None
        if hidden_states is not None:
            embedded = hidden_states.record(embedded.masked_fill(~mask[..., None], 0))
        states = self.recurrence(embedded, mask, num_segments, None if hidden_states is None else hidden_states.record)
        memory = states[-1]  # [B, T, H]
        if hidden_states is not None:
            memory = memory.masked_fill(~mask[..., None], 0)  # a mean adds up the zeros at pads: they get no gradient
        last_state = self.recurrence.last_state(memory, mask) if self.config.attention_query == "last" else None
        context, weights = self.pooling(memory, mask, last_state)
        attentions = TensorRecorder(columns) if output_attentions else None
        if attentions is not None:
            weights = attentions.record(weights, 3)
            if weights.requires_grad:
                context = compute_from(context, weighted_sum(weights, memory)[:, 0])
        return BaseModelOutputWithPooling(
            last_hidden_state=columns.widen(memory, 1) if hidden_states is None else hidden_states.tensors[-1],  # [B, T, H]
            pooler_output=context,  # [B, H]
            hidden_states=None if hidden_states is None else tuple(hidden_states.tensors),
            attentions=None if attentions is None else tuple(attentions.tensors),  # [B, heads, 1, T]
        )


class MaskAttnForSequenceClassification(MaskAttnPreTrainedModel):
    """One label, several labels or numbers for a sequence, from its context vector."""

    def __init__(self, config: MaskAttnConfig):
        super().__init__(config)
        self.maskattn = MaskAttnModel(config)
        self.dropout = nn.Dropout(_classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput:
        """Classify sequences; the inputs are those of `MaskAttnModel`.

        Args:
            input_ids: See `MaskAttnModel`, as `attention_mask`, `token_type_ids`, `inputs_embeds` and `lengths`.
            attention_mask: See there.
            token_type_ids: See there.
            inputs_embeds: See there.
            lengths: See there.
            labels: `[B]`, int, class of each row, or -100 for a row that has none; `[B, num_labels]`, 0 or 1, for several
                labels; `[B]` or `[B, num_labels]`, float, for regression. `config.problem_type` says which; where it is None
                it is found as transformers does, from `num_labels` and the dtype, and kept.
            num_items_in_batch: Number of labels in all batches of a step, by which Trainer has the loss divided.
            **kwargs: Passed on to `MaskAttnModel`.

        Returns:
            `loss` if there are labels, `logits` `[B, num_labels]`, and `hidden_states` and `attentions` if asked for.

        Raises:
            ValueError: As `MaskAttnModel`; if a label is outside of `num_labels` or the labels have another shape.
        """
        outputs, _, _ = self._encode(input_ids, inputs_embeds, attention_mask, lengths, **kwargs)
        logits = self.classifier(self.dropout(outputs.pooler_output))  # [B, num_labels]
        loss = None if labels is None else self._loss(logits, labels, num_items_in_batch)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _loss(self, logits, labels, num_items_in_batch):
        if self.config.problem_type is None:
            if self.config.num_labels == 1:
                self.config.problem_type = "regression"
            elif labels.is_floating_point():
                self.config.problem_type = "multi_label_classification"
            else:
                self.config.problem_type = "single_label_classification"
        if self.config.problem_type == "single_label_classification":
            return classification_loss(logits, labels, num_items_in_batch)
        return elementwise_loss(self.config.problem_type, logits, labels, num_items_in_batch)


class MaskAttnForTokenClassification(MaskAttnPreTrainedModel):
    """A label for each token, from its state beside the context vector of its sequence."""

    def __init__(self, config: MaskAttnConfig):
        super().__init__(config)
        self.maskattn = MaskAttnModel(config)
        self.dropout = nn.Dropout(_classifier_dropout(config))
        # Not `classifier`: a checkpoint of the head for sequences, whose classifier is narrower, must load here too.
        self.token_classifier = nn.Linear(2 * config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs,
    ) -> TokenClassifierOutput:
        """Label tokens; the inputs are those of `MaskAttnModel`.

        Args:
            input_ids: See `MaskAttnModel`, as `attention_mask`, `token_type_ids`, `inputs_embeds` and `lengths`.
            attention_mask: See there.
            token_type_ids: See there.
            inputs_embeds: See there.
            lengths: See there.
            labels: `[B, T]`, int, class of each token, -100 for a token that has none; labels at pads are not read.
            num_items_in_batch: Number of labels in all batches of a step, by which Trainer has the loss divided.
            **kwargs: Passed on to `MaskAttnModel`.

        Returns:
            `loss` if there are labels, `logits` `[B, T, num_labels]`, and `hidden_states` and `attentions` if asked for.

        Raises:
            ValueError: As `MaskAttnModel`; if a label is outside of `num_labels` or the labels have another shape.
        """
        outputs, mask, columns = self._encode(input_ids, inputs_embeds, attention_mask, lengths, **kwargs)
        logits = over_real_tokens(
            lambda features: self.token_classifier(self.dropout(features)),
            _token_features(outputs),
            columns.cut(mask),
            2 * self.config.hidden_size,
        )  # [B, L, num_labels]
        loss = None
        if labels is not None:
            loss = self._loss_of_tokens(logits, labels, num_items_in_batch, mask, columns)
        return TokenClassifierOutput(
            loss=loss, logits=columns.widen(logits, 1), hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class ScoreNorm(nn.LayerNorm):
    """The norm before the decoder; its first value makes scores by unit-scale embeddings start at unit scale too."""


class MaskedLMHead(nn.Module):
    """Scores of all tokens of the vocabulary at each position, by the embedding matrix if tied."""

    def __init__(self, config: MaskAttnConfig):
        super().__init__()
        self.transform = nn.Linear(2 * config.hidden_size, config.embedding_size)
        self.activation = ACT2FN["gelu"]
        self.norm = ScoreNorm(config.embedding_size)
        self.decoder = nn.Linear(config.embedding_size, config.vocab_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.norm(self.activation(self.transform(features))))  # [B, T, V]


class MaskAttnForMaskedLM(MaskAttnPreTrainedModel):
    """The token that stood under each mask token, from its state beside the context vector of its sequence."""

    _tied_weights_keys = {"lm_head.decoder.weight": "maskattn.word_embeddings.weight"}  # noqa: RUF012

    def __init__(self, config: MaskAttnConfig):
        super().__init__(config)
        self.maskattn = MaskAttnModel(config)
        self.lm_head = MaskedLMHead(config)
        self.post_init()

    def get_output_embeddings(self):
        return self.lm_head.decoder

    def set_output_embeddings(self, new_embeddings):
        self.lm_head.decoder = new_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs,
    ) -> MaskedLMOutput:
        """Predict masked tokens; the inputs are those of `MaskAttnModel`.

        Args:
            input_ids: See `MaskAttnModel`, as `attention_mask`, `token_type_ids`, `inputs_embeds` and `lengths`.
            attention_mask: See there.
            token_type_ids: See there.
            inputs_embeds: See there.
            lengths: See there.
            labels: `[B, T]`, int, the token ids to predict, -100 elsewhere; labels at pads are not read.
            num_items_in_batch: Number of labels in all batches of a step, by which Trainer has the loss divided.
            **kwargs: Passed on to `MaskAttnModel`.

        Returns:
            `loss` if there are labels, `logits` `[B, T, vocab_size]`, and `hidden_states` and `attentions` if asked for.

        Raises:
            ValueError: As `MaskAttnModel`; if a label is outside of the vocabulary or the labels have another shape.
        """
        outputs, mask, columns = self._encode(input_ids, inputs_embeds, attention_mask, lengths, **kwargs)
        logits = over_real_tokens(
            self.lm_head, _token_features(outputs), columns.cut(mask), self.config.vocab_size
        )  # [B, L, V]
        loss = None
        if labels is not None:
            loss = self._loss_of_tokens(logits, labels, num_items_in_batch, mask, columns)
        return MaskedLMOutput(
            loss=loss,
            logits=columns.widen(logits, 1),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def _classifier_dropout(config: MaskAttnConfig) -> float:
    return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout


def _token_features(outputs: BaseModelOutputWithPooling) -> torch.Tensor:
    """Put the context of its sequence beside the state of each token: `[B, T, 2 H]`."""
    states = outputs.last_hidden_state
    return torch.cat([states, outputs.pooler_output[:, None].expand_as(states)], dim=-1)


__all__ = [
    "MaskAttnForMaskedLM",
    "MaskAttnForSequenceClassification",
    "MaskAttnForTokenClassification",
    "MaskAttnModel",
    "MaskAttnPreTrainedModel",
]
