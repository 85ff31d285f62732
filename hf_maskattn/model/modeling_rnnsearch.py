"""The recurrent encoder-decoder with attention, as a Hugging Face model that generates.

input_ids + attention_mask -> embeddings -> masked recurrence -> annotations
decoder_input_ids -> embeddings -> recurrence that attends to the annotations -> deep output -> vocabulary
"""

import torch
from torch import nn
from torch.nn.functional import pad
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput, Seq2SeqModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_rnnsearch import AUTO_MAP, RNNSearchConfig
from .decoder import AttentiveDecoder
from .decoder_layers import DeepOutput
from .generation import CACHE_NAME, DecodingState, StatefulGenerationMixin
from .losses import IGNORED, classification_loss
from .masking import TokenColumns, apply_to_tokens, build_token_mask, check_values, find_token_columns
from .modeling_recurrent import RecurrentPreTrainedModel
from .recurrence import MaskedRecurrence

# After an interrupted download, transformers looks again only for the files that this one imports (F401).
from .attention import AdditiveAttention  # noqa: F401  # isort: skip
from .attention_functions import eager_attention  # noqa: F401  # isort: skip
from .attentive_recurrence import attentive_recurrence  # noqa: F401  # isort: skip
from .configuration_maskattn import MaskAttnConfig  # noqa: F401  # isort: skip
from .packing import PackedLayout  # noqa: F401  # isort: skip
from .recurrent_autograd import packed_gru  # noqa: F401  # isort: skip
from .recurrent_kernel import choose_layout  # noqa: F401  # isort: skip
from .remote_code import CODE_VERSION  # noqa: F401  # isort: skip


class RNNSearchPreTrainedModel(RecurrentPreTrainedModel):
    """Base class of the encoder, the encoder-decoder and its head."""

    config: RNNSearchConfig
    all_auto_classes = AUTO_MAP
    base_model_prefix = "rnnsearch"
    _is_stateful = True
    _no_split_modules = ["RecurrentLayer", "AttentiveDecoder"]  # noqa: RUF012

    @torch.no_grad()
    def _init_weights(self, module):
        # One matrix embeds tokens and, tied, scores them. With rows of unit length, the first distribution is nearly uniform.
        if isinstance(module, nn.Embedding) and self.config.initializer_range is None:
            init.normal_(module.weight, std=module.embedding_dim**-0.5)
        else:
            super()._init_weights(module)

    def resize_token_embeddings(self, new_num_tokens=None, pad_to_multiple_of=None, mean_resizing=True):
        """Resize the one vocabulary of source and target, as of every transformers model.

        Raises:
            ValueError: If source and target have embeddings of their own.
        """
        if not self.config.share_embeddings:
            raise ValueError(
                "share_embeddings must be True for resize_token_embeddings, which resizes one vocabulary, got False. Build a "
                "model with the new vocab_size and source_vocab_size, and copy the weights that stay."
            )
        self.config.source_vocab_size = None  # if it was set, it was vocab_size, which changes now
        return super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)


class RNNSearchEncoder(RNNSearchPreTrainedModel):
    """The encoder: an annotation of each source token, from both directions.

    Args:
        config: Configuration of the model.
    """

    def __init__(self, config: RNNSearchConfig):
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.source_vocab_size or config.vocab_size, config.embedding_size)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout_prob)
        self.recurrence = MaskedRecurrence(
            input_size=config.embedding_size,
            hidden_size=config.hidden_size,
            num_layers=config.encoder_layers,
            rnn_type=config.rnn_type,
            dropout=config.hidden_dropout_prob,
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
        inputs_embeds: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> BaseModelOutput:
        """Encode a source.

        Args:
            input_ids: `[B, Tk]`, int, token ids.
            attention_mask: `[B, Tk]`, 1 = token, 0 = padding, in any arrangement; None means that there is no padding.
            inputs_embeds: `[B, Tk, embedding_size]`, instead of `input_ids`.
            output_hidden_states: Whether to return the embeddings and the states of every layer; None selects
                `config.output_hidden_states`.
            **kwargs: Accepted as by every transformers model.

        Returns:
            `last_hidden_state` `[B, Tk, H]`, 0 at padding; `hidden_states`, `encoder_layers + 1` tensors, 0 at padding. Each is
            computed from the previous one, so that gradients reach them.

        Raises:
            ValueError: If the inputs do not fit each other, or a token id is outside of the vocabulary.
        """
        mask = self._token_mask(input_ids, inputs_embeds, attention_mask)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        columns = find_token_columns(mask)
        if output_hidden_states:  # padded afterwards, the returned tensors would be copies that no output depends on
            columns = columns.all_columns()
        mask = columns.crop(mask)
        embedded = self._embed(input_ids, inputs_embeds, mask, columns, self.word_embeddings)  # [B, L, E]
        if output_hidden_states:
            embedded = embedded.masked_fill(~mask[..., None], 0)
        states = self.recurrence(embedded, mask)
        return BaseModelOutput(
            last_hidden_state=columns.pad(states[-1], 1),
            hidden_states=(embedded, *states) if output_hidden_states else None,
        )


class RNNSearchModel(RNNSearchPreTrainedModel):
    """The encoder-decoder: for each target token the features from which the next token is predicted.

    Args:
        config: Configuration of the model.
    """

    def __init__(self, config: RNNSearchConfig):
        super().__init__(config)
        decoder_size = config.decoder_hidden_size or config.hidden_size
        self.encoder = RNNSearchEncoder(config)
        self.target_embeddings = None
        if not config.share_embeddings:
            self.target_embeddings = nn.Embedding(config.vocab_size, config.embedding_size)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout_prob)
        self.decoder = AttentiveDecoder(
            input_size=config.embedding_size,
            hidden_size=decoder_size,
            memory_size=config.hidden_size,
            num_layers=config.decoder_layers,
            rnn_type=config.rnn_type,
            attention_query=config.attention_query,
            input_feeding=config.input_feeding,
            attention_size=config.attention_size,
            num_heads=config.num_attention_heads,
            attention_dropout=config.attention_dropout_prob,
            implementation=config.attention_implementation,
            dropout=config.hidden_dropout_prob,
        )
        self.output = DeepOutput(
            state_size=decoder_size,
            embedding_size=config.embedding_size,
            context_size=config.hidden_size,
            output_size=config.output_size or config.embedding_size,
            form=config.output_layer,
            dropout=config.hidden_dropout_prob,
        )
        self.post_init()

    def get_input_embeddings(self):
        return self.encoder.word_embeddings

    def set_input_embeddings(self, value):
        self.encoder.word_embeddings = value

    def get_target_embeddings(self) -> nn.Embedding:
        """Return the embeddings of target tokens, those of the source if they are shared."""
        return self.encoder.word_embeddings if self.target_embeddings is None else self.target_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        cache: DecodingState | None = None,
        past_key_values: DecodingState | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> Seq2SeqModelOutput:
        """Read a source and a target.

        Args:
            input_ids: `[B, Tk]`, int, token ids of the source.
            attention_mask: `[B, Tk]`, 1 = token, 0 = padding, in any arrangement; None means that there is no padding.
            decoder_input_ids: `[B, T]`, int, token ids of the target, or of its next part, if a state is given.
            decoder_attention_mask: `[B, T]`, or with the tokens that the state has read, as `attention_mask`. Padding leaves
                the state unchanged.
            encoder_outputs: What the encoder returned for this source, instead of `input_ids`.
            cache: The state to continue from, as an earlier call returned it. It holds the encoded source, is not changed, and
                may be used again.
            past_key_values: The name of `cache` before transformers 5.24.
            inputs_embeds: `[B, Tk, embedding_size]`, instead of `input_ids`.
            decoder_inputs_embeds: `[B, T, embedding_size]`, instead of `decoder_input_ids`.
            use_cache: Whether to return the state to continue from; None selects `config.use_cache`.
            output_attentions: Whether to return the attention weights; None selects `config.output_attentions`.
            output_hidden_states: Whether to return embeddings and states; None selects `config.output_hidden_states`.
            **kwargs: Accepted as by every transformers model.

        Returns:
            `last_hidden_state` `[B, T, output_size]`, the features from which the next tokens are predicted; `cache` (before
            transformers 5.24 `past_key_values`); `decoder_hidden_states`, the embeddings and the states of each layer, 0 at
            padding; `cross_attentions`, one tensor `[B, heads, T, Tk]`, exactly 0 at padding of either side; and the same of
            the encoder. Later outputs are computed from these tensors, so that gradients reach them. A source without a
            token has weights and contexts of 0, and starts from the bias of the first state.

        Raises:
            ValueError: If the inputs do not fit each other, or a token id is outside of its vocabulary.
        """
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if use_cache is None:
            use_cache = self.config.use_cache
        state = cache if cache is not None else past_key_values
        if encoder_outputs is None and state is None:
            encoder_outputs = self.encoder(
                input_ids, attention_mask, inputs_embeds, output_hidden_states=output_hidden_states, return_dict=True
            )
        encoded = BaseModelOutput(*encoder_outputs) if isinstance(encoder_outputs, tuple | list) else encoder_outputs
        target = self._select_inputs(decoder_input_ids, decoder_inputs_embeds, "decoder_")
        rows, time = target.shape[:2]
        mask = self._target_mask(target, decoder_attention_mask, state)
        columns = TokenColumns(0, time, time)
        if mask is not None and not (use_cache or output_hidden_states or output_attentions):
            columns = find_token_columns(mask)
        mask = None if mask is None else columns.crop(mask)  # [B, L]
        embedded = self._embed(
            decoder_input_ids, decoder_inputs_embeds, mask, columns, self.get_target_embeddings(), "decoder_"
        )
        embedded = embedded if mask is None else embedded.masked_fill(~mask[..., None], 0)  # [B, L, E]
        source = None
        if encoded is not None and state is None:
            source = self._start_of_source(encoded.last_hidden_state, attention_mask, rows)
        decoded = self.decoder(embedded, mask, state, source, use_cache, output_attentions)
        features = self.output(decoded.states[-1], embedded, decoded.contexts, mask)  # [B, L, output_size]
        return Seq2SeqModelOutput(
            last_hidden_state=columns.pad(features, 1),
            decoder_hidden_states=(embedded, *decoded.states) if output_hidden_states else None,
            cross_attentions=(decoded.weights,) if output_attentions else None,
            encoder_last_hidden_state=None if encoded is None else encoded.last_hidden_state,
            encoder_hidden_states=None if encoded is None else encoded.hidden_states,
            **{CACHE_NAME: decoded.state},
        )

    def _start_of_source(self, memory: torch.Tensor, attention_mask, rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return where the decoder starts: annotations, their mask, and the backward encoder at the first token."""
        if len(memory) != rows:
            raise ValueError(f"Source and target must have the same number of rows, got {len(memory)} and {rows}.")
        mask = build_token_mask(memory.shape[:2], memory.device, attention_mask)
        summary = self.encoder.recurrence.last_state(memory, mask)[:, memory.shape[2] // 2 :]
        return memory, mask, summary

    def _target_mask(self, target: torch.Tensor, attention_mask, state: DecodingState | None) -> torch.Tensor | None:
        """Build the mask `[B, T]`, bool, of the target tokens to read, and check that the state fits them."""
        rows, time = target.shape[:2]
        if time == 0:
            raise ValueError(
                "The target must have at least one column, got none. It starts with config.decoder_start_token_id."
            )
        if state is not None and state.batch_size != rows:
            raise ValueError(
                f"The state must have as many rows as the target, {rows}, got {state.batch_size}. "
                "state.batch_repeat_interleave(n) repeats each row, state.batch_select_indices(rows) selects rows."
            )
        if attention_mask is None:
            return None
        seen = 0 if state is None else state.get_seq_length()
        if seen and attention_mask.shape[-1] == seen + time:
            attention_mask = attention_mask[:, seen:]
        return build_token_mask(target.shape[:2], target.device, attention_mask)


class RNNSearchForConditionalGeneration(RNNSearchPreTrainedModel, StatefulGenerationMixin):
    """The encoder-decoder with a language modeling head, for training with labels and for `generate()`.

    Args:
        config: Configuration of the model.
    """

    def __init__(self, config: RNNSearchConfig):
        super().__init__(config)
        self.rnnsearch = RNNSearchModel(config)
        self.lm_head = nn.Linear(config.output_size or config.embedding_size, config.vocab_size)
        owner = "encoder.word_embeddings" if config.share_embeddings else "target_embeddings"
        self._tied_weights_keys = {"lm_head.weight": f"rnnsearch.{owner}.weight"}
        self.post_init()

    def get_input_embeddings(self):
        return self.rnnsearch.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.rnnsearch.set_input_embeddings(value)

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, new_embeddings):
        self.lm_head = new_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        cache: DecodingState | None = None,
        past_key_values: DecodingState | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs,
    ) -> Seq2SeqLMOutput:
        """Predict the next tokens of a target.

        Args:
            input_ids: `[B, Tk]`, int, token ids of the source.
            attention_mask: `[B, Tk]`, 1 = token, 0 = padding, in any arrangement; None means that there is no padding.
            decoder_input_ids: `[B, T]`, int, token ids of the target, or of its next part, if a state is given; None derives
                them from the labels.
            decoder_attention_mask: `[B, T]`, or with the tokens that the state has read, as `attention_mask`. None with labels
                reads a row up to its last label, and no padding before its first.
            encoder_outputs: What the encoder returned for this source, instead of `input_ids`.
            cache: The state to continue from, as an earlier call returned it.
            past_key_values: The name of `cache` before transformers 5.24.
            inputs_embeds: `[B, Tk, embedding_size]`, instead of `input_ids`.
            decoder_inputs_embeds: `[B, T, embedding_size]`, instead of `decoder_input_ids`.
            labels: `[B, T]`, int, the token that follows each target token, -100 where there is none.
            use_cache: Whether to return the state to continue from; with labels no state is returned.
            num_items_in_batch: Number of labels in all batches of a step, by which Trainer divides the loss.
            **kwargs: Passed to `RNNSearchModel`, such as `output_attentions`.

        Returns:
            `loss` if there are labels, `logits` `[B, T, V]`, and what `RNNSearchModel` returns besides its last hidden state.

        Raises:
            ValueError: If the inputs do not fit each other, a token id or a label is outside of its vocabulary, or labels have
                another shape or are longer than `config.max_target_length`.
        """
        if labels is not None:
            self._check_length(labels)
            use_cache = False
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
            if decoder_input_ids is not None and decoder_attention_mask is None:
                decoder_attention_mask = _labeled_mask(decoder_input_ids, labels, self.config.pad_token_id)
        outputs = self.rnnsearch(
            input_ids,
            attention_mask,
            decoder_input_ids,
            decoder_attention_mask,
            encoder_outputs,
            cache,
            past_key_values,
            inputs_embeds,
            decoder_inputs_embeds,
            use_cache,
            return_dict=True,
            **kwargs,
        )
        features = outputs.last_hidden_state  # [B, T, output_size]
        if decoder_attention_mask is None:
            logits, mask = self.lm_head(features), None
        else:
            mask = build_token_mask(features.shape[:2], features.device, decoder_attention_mask[:, -features.shape[1] :])
            logits = apply_to_tokens(self.lm_head, features, mask, self.lm_head.out_features)  # [B, T, V]
        loss = None if labels is None else classification_loss(logits, labels, num_items_in_batch, mask)
        others = {key: value for key, value in outputs.items() if key != "last_hidden_state"}
        return Seq2SeqLMOutput(loss=loss, logits=logits, **others)

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Shift labels `[B, T]` to the right, to the tokens that the decoder reads to predict them; collators call this.

        `config.decoder_start_token_id` stands where the first label of a row is, and `config.pad_token_id` wherever there is
        no label, so that labels padded on the left lead to targets padded on the left.

        Raises:
            ValueError: If one of the two ids is missing, or `labels` is no batch.
        """
        if labels.dim() != 2 or labels.shape[1] == 0:
            raise ValueError(f"`labels` must have shape [batch, time] with at least the end token, got {list(labels.shape)}.")
        ids = {name: getattr(self.config, name) for name in ("decoder_start_token_id", "pad_token_id")}
        for name, value in ids.items():
            if value is None:
                raise ValueError(f"config.{name} must be an id of the tokenizer to derive targets from labels, got None.")
        has_label = labels != IGNORED
        tokens = labels.masked_fill(~has_label, ids["pad_token_id"])
        is_first = has_label & (has_label.cumsum(dim=1) == 1)
        is_first[:, :1] |= ~has_label.any(dim=1, keepdim=True)
        return pad(tokens, (1, -1), value=ids["pad_token_id"]).masked_fill(is_first, ids["decoder_start_token_id"])

    def _check_length(self, labels: torch.Tensor) -> None:
        limit = self.config.max_target_length
        if limit is not None and labels.shape[-1] > limit:
            check_values(
                labels[..., limit:] == IGNORED,
                lambda: (
                    f"`labels` must have at most config.max_target_length={limit} columns, got {labels.shape[-1]}. Truncate "
                    f"targets in the tokenizer (truncation=True, max_length={limit}), or set the limit to None."
                ),
                f"labels are longer than max_target_length={limit}",
            )


def _labeled_mask(ids: torch.Tensor, labels: torch.Tensor, pad_token_id: int | None) -> torch.Tensor | None:
    """Build the mask `[B, T]` of the target tokens to read: up to the last label, without padding before the first."""
    if ids.shape != labels.shape:
        return None
    has_label = labels != IGNORED
    has_started = (has_label | (ids != pad_token_id)).cumsum(dim=1) > 0
    has_label_ahead = has_label.flip(1).cumsum(dim=1).flip(1) > 0
    return has_started & has_label_ahead


__all__ = ["RNNSearchForConditionalGeneration", "RNNSearchModel", "RNNSearchPreTrainedModel"]
