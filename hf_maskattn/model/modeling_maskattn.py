"""The masked recurrent encoder and its heads, as Hugging Face models.

input_ids + attention_mask -> embeddings -> masked recurrence -> masked additive attention -> head
"""

import warnings

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    SequenceClassifierOutput,
)
from transformers.utils.generic import can_return_tuple

from .attention import AttentionPooling
from .configuration_maskattn import AUTO_MAP, MaskAttnConfig
from .crf import CRFTokenClassifierOutput, LinearChainCRF
from .losses import classification_loss, count_labels, elementwise_loss, validate_labels
from .masking import TokenColumns, apply_to_tokens, at_least_float32, find_token_columns
from .modeling_recurrent import RecurrentPreTrainedModel
from .recurrence import MaskedRecurrence

# After an interrupted download, transformers looks again only for the files that this one imports (F401).
from .attention_functions import eager_attention  # noqa: F401  # isort: skip
from .lattice import Lattice  # noqa: F401  # isort: skip
from .packing import PackedLayout  # noqa: F401  # isort: skip
from .recurrent_autograd import packed_gru  # noqa: F401  # isort: skip
from .recurrent_kernel import choose_layout  # noqa: F401  # isort: skip
from .remote_code import CODE_VERSION  # noqa: F401  # isort: skip
from .viterbi import max_product  # noqa: F401  # isort: skip


class MaskAttnPreTrainedModel(RecurrentPreTrainedModel):
    """Base class of the encoder and its heads."""

    config: MaskAttnConfig
    all_auto_classes = AUTO_MAP
    base_model_prefix = "maskattn"
    _no_split_modules = ["RecurrentLayer", "AttentionPooling"]  # noqa: RUF012

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, AttentionPooling) and module.query is not None:
            init.normal_(module.query)
        elif isinstance(module, ScoreNorm):
            init.constant_(module.weight, module.weight.shape[0] ** -0.5 / self.config.initializer_range)
            init.zeros_(module.bias)
        elif isinstance(module, LinearChainCRF):
            for parameter in module.parameters():
                init.zeros_(parameter)
            for name, value in module.build_constraints().items():
                init.copy_(getattr(module, name), value)
        else:
            super()._init_weights(module)

    def _select_columns(self, mask, output_hidden_states=None, output_attentions=None) -> TokenColumns:
        """Select the columns to compute: those with a token, or all where hidden states or attentions are returned.

        Padded afterwards, the returned tensors would be copies that no output depends on.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        columns = find_token_columns(mask)
        return columns.all_columns() if output_hidden_states or output_attentions else columns

    def _encode(
        self, input_ids, inputs_embeds, attention_mask, lengths, output_hidden_states=None, output_attentions=None, **kwargs
    ) -> tuple[BaseModelOutputWithPooling, torch.Tensor, TokenColumns]:
        """Run the encoder of a head; returns its outputs over the selected columns, the mask `[B, T]` and the columns."""
        mask = self._token_mask(input_ids, inputs_embeds, attention_mask, lengths)
        columns = self._select_columns(mask, output_hidden_states, output_attentions)
        outputs = self.maskattn(
            None if input_ids is None else columns.crop(input_ids),
            columns.crop(mask),
            inputs_embeds=None if inputs_embeds is None else columns.crop(inputs_embeds),
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
            **kwargs,
        )
        return outputs, mask, columns

    def _token_loss(self, logits, labels, num_items_in_batch, mask, columns) -> torch.Tensor:
        """Average the cross entropy of logits over the selected columns and labels `[B, T]`."""
        return classification_loss(logits, columns.crop_labels(labels, mask), num_items_in_batch, columns.crop(mask))


class MaskAttnModel(MaskAttnPreTrainedModel):
    """The encoder: a state for each token, and a context vector for the sequence by additive attention over its tokens.

    Args:
        config: Configuration of the model.
    """

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
        num_time_chunks: int | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        """Encode a batch.

        Args:
            input_ids: `[B, T]`, int, token ids.
            attention_mask: `[B, T]`, 1 = token, 0 = padding, in any arrangement; None means that there is no padding.
            token_type_ids: Accepted from BERT tokenizers; not read.
            inputs_embeds: `[B, T, embedding_size]`, instead of `input_ids`.
            lengths: `[B]`, int, number of tokens of each right-padded row, instead of `attention_mask`.
            num_time_chunks: Number of chunks into which time is cut in the recurrence; None selects the cheapest. The results
                are the same up to rounding.
            output_attentions: Whether to return the attention weights; None selects `config.output_attentions`.
            output_hidden_states: Whether to return the embeddings and the states of every layer; None selects
                `config.output_hidden_states`.
            **kwargs: Accepted as by every transformers model.

        Returns:
            `last_hidden_state` `[B, T, H]`, 0 at padding; `pooler_output` `[B, H]`, the context, 0 for a row without a token;
            `attentions`, one tensor `[B, heads, 1, T]`, exactly 0 at padding; `hidden_states`, `num_hidden_layers + 1`
            tensors, 0 at padding. The outputs are computed from these tensors themselves, so that gradients reach them.

        Raises:
            ValueError: If the inputs do not fit each other, or a token id is outside of the vocabulary.
        """
        if "num_segments" in kwargs:
            warnings.warn("num_segments is deprecated. Use num_time_chunks.", FutureWarning, stacklevel=2)
            num_time_chunks = kwargs["num_segments"]
        mask = self._token_mask(input_ids, inputs_embeds, attention_mask, lengths)
        columns = self._select_columns(mask, output_hidden_states, output_attentions)
        mask = columns.crop(mask)
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        embedded = self._embed(input_ids, inputs_embeds, mask, columns, self.word_embeddings)  # [B, T, E]
        if output_hidden_states:
            embedded = embedded.masked_fill(~mask[..., None], 0)
        states = self.recurrence(embedded, mask, num_time_chunks)
        memory = states[-1]  # [B, T, H]
        last_state = self.recurrence.last_state(memory, mask) if self.config.attention_query == "last" else None
        context, weights = self.pooling(memory, mask, last_state, output_attentions)
        return BaseModelOutputWithPooling(
            last_hidden_state=columns.pad(memory, 1),  # [B, T, H]
            pooler_output=context,  # [B, H]
            hidden_states=(embedded, *states) if output_hidden_states else None,
            attentions=(weights,) if output_attentions else None,  # [B, heads, 1, T]
        )


class MaskAttnForSequenceClassification(MaskAttnPreTrainedModel):
    """The encoder with a head for sequence classification (one label or several) or regression on the context vector.

    Args:
        config: Configuration of the model, with `num_labels` and `problem_type`. Of one for joint classification, the labels of
            sequences become the labels of the model.
    """

    _keys_to_ignore_on_load_unexpected = [r"^(token_classifier|crf)\."]  # noqa: RUF012 (of a model for joint classification)

    def __init__(self, config: MaskAttnConfig):
        super().__init__(config if config.sequence_label_names is None else config.for_sequence_classification())
        config = self.config
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
        """Classify sequences.

        Args:
            input_ids: `[B, T]`, int, token ids.
            attention_mask: `[B, T]`, 1 = token, 0 = padding, in any arrangement; None means that there is no padding.
            token_type_ids: Accepted from BERT tokenizers; not read.
            inputs_embeds: `[B, T, embedding_size]`, instead of `input_ids`.
            lengths: `[B]`, int, number of tokens of each right-padded row, instead of `attention_mask`.
            labels: `[B]`, int, class of each row, or -100 for a row that has none; `[B, num_labels]`, 0 or 1, for several
                labels; `[B]` or `[B, num_labels]`, float, for regression. `config.problem_type` selects one; if it is None
                it is inferred as in transformers, from `num_labels` and the dtype, and stored.
            num_items_in_batch: Number of labels in all batches of a step, by which Trainer divides the loss.
            **kwargs: Passed to `MaskAttnModel`, such as `output_attentions`.

        Returns:
            `loss` if there are labels, `logits` `[B, num_labels]`, and `hidden_states` and `attentions` if requested.

        Raises:
            ValueError: If the inputs do not fit each other, a token id is outside of the vocabulary, a label is not below
                `num_labels`, or the labels have another shape.
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
    """The encoder with a head for token classification on the state of each token and the context vector.

    Args:
        config: Configuration of the model, with `num_labels`.
    """

    _keys_to_ignore_on_load_unexpected = [r"^classifier\."]  # noqa: RUF012 (of a model for joint classification)

    def __init__(self, config: MaskAttnConfig):
        super().__init__(config)
        self.maskattn = MaskAttnModel(config)
        self.dropout = nn.Dropout(_classifier_dropout(config))
        # Not `classifier`: a checkpoint of the head for sequences, whose classifier is narrower, must load here too.
        self.token_classifier = nn.Linear(2 * config.hidden_size, config.num_labels)
        self.crf: LinearChainCRF | None = None
        if config.use_crf:
            labels = [config.id2label[number] for number in range(config.num_labels)]
            self.crf = LinearChainCRF(len(labels), None if config.tag_scheme == "none" else labels)
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
        output_marginals: bool = False,
        **kwargs,
    ) -> CRFTokenClassifierOutput:
        """Label tokens.

        Args:
            input_ids: `[B, T]`, int, token ids.
            attention_mask: `[B, T]`, 1 = token, 0 = padding, in any arrangement; None means that there is no padding.
            token_type_ids: Accepted from BERT tokenizers; not read.
            inputs_embeds: `[B, T, embedding_size]`, instead of `input_ids`.
            lengths: `[B]`, int, number of tokens of each right-padded row, instead of `attention_mask`.
            labels: `[B, T]`, int, class of each token, -100 for a token that has none; not read at padding.
            num_items_in_batch: Number of labels in all batches of a step, by which Trainer divides the loss.
            output_marginals: Whether to return the probability of each label of each token.
            **kwargs: Passed to `MaskAttnModel`, such as `output_attentions`.

        Returns:
            `loss` if there are labels, `logits` `[B, T, num_labels]`, and `hidden_states`, `attentions` and `marginals`
            `[B, T, num_labels]` (0 at padding) if requested. With `config.use_crf` the loss is minus the log-probability of all
            labels, summed over the labels that a token without one may have, divided by the number of labels; the logits are
            emissions in training mode, and in evaluation mode max-marginals, whose argmax is the most probable sequence.

        Raises:
            ValueError: If the inputs do not fit each other, a token id is outside of the vocabulary, a label is not below
                `num_labels`, the labels have another shape, or the CRF forbids their sequence.
        """
        outputs, mask, columns = self._encode(input_ids, inputs_embeds, attention_mask, lengths, **kwargs)
        emissions = self._emissions(outputs, columns.crop(mask))
        loss, logits = self._classify_tokens(emissions, mask, columns, labels, num_items_in_batch)
        return CRFTokenClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            marginals=columns.pad(self._marginals(emissions, columns.crop(mask)), 1) if output_marginals else None,
        )

    def _marginals(self, emissions, mask) -> torch.Tensor:
        if self.crf is None:
            return at_least_float32(emissions).softmax(dim=-1).masked_fill(~mask[..., None], 0)
        return self.crf.marginals(emissions, mask)

    def _emissions(self, outputs, mask) -> torch.Tensor:
        """Score the labels of the tokens of the selected columns: `[B, L, num_labels]`."""
        return apply_to_tokens(
            lambda features: self.token_classifier(self.dropout(features)),
            _token_features(outputs),
            mask,
            2 * self.config.hidden_size,
        )

    def _classify_tokens(self, emissions, mask, columns, labels, num_items) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Return the loss, None without labels, and the logits `[B, T, num_labels]`."""
        if self.crf is None:
            loss = None if labels is None else self._token_loss(emissions, labels, num_items, mask, columns)
            return loss, columns.pad(emissions, 1)
        loss, kept = None, columns.crop(mask)
        if labels is not None:
            labels = validate_labels(columns.crop_labels(labels, mask), emissions, kept)
            loss = self.crf(emissions, kept, labels).sum() / count_labels(labels, num_items)
        return loss, columns.pad(emissions if self.training else self.crf.max_marginals(emissions, kept), 1)


class ScoreNorm(nn.LayerNorm):
    """The norm before the output matrix, initialized so that the first logits of tied embeddings have unit scale."""


class MaskedLMHead(nn.Module):
    """Logits of all tokens of the vocabulary at each position, with the embedding matrix if tied."""

    def __init__(self, config: MaskAttnConfig):
        super().__init__()
        self.transform = nn.Linear(2 * config.hidden_size, config.embedding_size)
        self.activation = ACT2FN["gelu"]
        self.norm = ScoreNorm(config.embedding_size)
        self.decoder = nn.Linear(config.embedding_size, config.vocab_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.norm(self.activation(self.transform(features))))  # [B, T, V]


class MaskAttnForMaskedLM(MaskAttnPreTrainedModel):
    """The encoder with a head for masked language modeling on the state of each token and the context vector.

    Args:
        config: Configuration of the model.
    """

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
        """Predict masked tokens.

        Args:
            input_ids: `[B, T]`, int, token ids.
            attention_mask: `[B, T]`, 1 = token, 0 = padding, in any arrangement; None means that there is no padding.
            token_type_ids: Accepted from BERT tokenizers; not read.
            inputs_embeds: `[B, T, embedding_size]`, instead of `input_ids`.
            lengths: `[B]`, int, number of tokens of each right-padded row, instead of `attention_mask`.
            labels: `[B, T]`, int, the token ids to predict, -100 elsewhere; not read at padding.
            num_items_in_batch: Number of labels in all batches of a step, by which Trainer divides the loss.
            **kwargs: Passed to `MaskAttnModel`, such as `output_attentions`.

        Returns:
            `loss` if there are labels, `logits` `[B, T, vocab_size]`, and `hidden_states` and `attentions` if requested.

        Raises:
            ValueError: If the inputs do not fit each other, a token id or a label is outside of the vocabulary, or the labels
                have another shape.
        """
        outputs, mask, columns = self._encode(input_ids, inputs_embeds, attention_mask, lengths, **kwargs)
        features = _token_features(outputs)
        logits = apply_to_tokens(self.lm_head, features, columns.crop(mask), self.config.vocab_size)  # [B, L, V]
        loss = None if labels is None else self._token_loss(logits, labels, num_items_in_batch, mask, columns)
        return MaskedLMOutput(
            loss=loss, logits=columns.pad(logits, 1), hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


def _classifier_dropout(config: MaskAttnConfig) -> float:
    return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout


def _token_features(outputs: BaseModelOutputWithPooling) -> torch.Tensor:
    """Concatenate the state of each token and the context of its sequence: `[B, T, 2 H]`."""
    states = outputs.last_hidden_state
    return torch.cat([states, outputs.pooler_output[:, None].expand_as(states)], dim=-1)


__all__ = [
    "MaskAttnForMaskedLM",
    "MaskAttnForSequenceClassification",
    "MaskAttnForTokenClassification",
    "MaskAttnModel",
    "MaskAttnPreTrainedModel",
]
