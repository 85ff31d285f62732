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

# After a download that broke, transformers looks again only for the files that this one names: it names all (F401).
from .attention import AdditiveAttention  # noqa: F401
from .attentive_gradient import attentive_recurrence_over_cells  # noqa: F401
from .attentive_recurrence import attentive_recurrence  # noqa: F401
from .attentive_step import attentive_step  # noqa: F401
from .cells import CellLayout  # noqa: F401
from .checkpoint_code import carry_code_above_checkpoint  # noqa: F401
from .chunked_attention import chunked_attention  # noqa: F401
from .code_version import is_newer_than_this_code  # noqa: F401
from .configuration_checks import check_widths  # noqa: F401
from .configuration_rnnsearch import AUTO_MAP, RNNSearchConfig
from .decoder import AttentiveDecoder
from .decoder_layers import PlainLayer  # noqa: F401
from .decoding_state import STATE, DecodingState
from .deep_output import DeepOutput
from .eager_attention import eager_attention  # noqa: F401
from .gate_steps import gru_step  # noqa: F401
from .generation_limits import refuse_settings  # noqa: F401
from .gradient_path import TensorRecorder
from .gru_gradient import gru_over_cells  # noqa: F401
from .initialization import recurrent_weight  # noqa: F401
from .losses import IGNORED, classification_loss
from .masking import RealColumns, real_columns, real_token_mask
from .modeling_recurrent import RecurrentPreTrainedModel
from .precision import at_least_float32  # noqa: F401
from .ragged_attention import ragged_attention  # noqa: F401
from .real_tokens import over_real_tokens
from .recurrence import MaskedRecurrence
from .recurrence_operator import recurrence_operator  # noqa: F401
from .recurrent_kernel import arrange  # noqa: F401
from .segments import Segment  # noqa: F401
from .softmax import masked_softmax  # noqa: F401
from .source_processors import read_real_tokens  # noqa: F401
from .stateful_generation import StatefulGenerationMixin
from .tanh import tanh  # noqa: F401
from .tensor_checks import check_values


class RNNSearchPreTrainedModel(RecurrentPreTrainedModel):
    """What the encoder, the encoder-decoder and its head share."""

    config: RNNSearchConfig
    all_auto_classes = AUTO_MAP
    base_model_prefix = "rnnsearch"
    _is_stateful = True
    _no_split_modules = ["RecurrentLayer", "AttentiveDecoder"]  # noqa: RUF012

    @torch.no_grad()
    def _init_weights(self, module):
        # One matrix embeds words and, tied, scores them: of unit length they begin near an even choice and learn fastest.
        if isinstance(module, nn.Embedding):
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
                "resize_token_embeddings cannot tell two vocabularies apart, and share_embeddings=False: build a model with "
                "the wanted vocab_size and source_vocab_size, and copy the weights that stay."
            )
        self.config.source_vocab_size = None  # if it was named, it was vocab_size, which changes now
        return super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)


class RNNSearchEncoder(RNNSearchPreTrainedModel):
    """The encoder: an annotation of every source token, from both sides."""

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
        """Annotate a source.

        Args:
            input_ids: `[B, Tk]`, int, token ids.
            attention_mask: `[B, Tk]`, 1 = real token, 0 = padding, in any arrangement; None means that all are real.
            inputs_embeds: `[B, Tk, embedding_size]`, instead of `input_ids`.
            output_hidden_states: Whether to return the embeddings and the states of every layer.
            **kwargs: Accepted as by every transformers model.

        Returns:
            `last_hidden_state` `[B, Tk, H]`, 0 at pads; `hidden_states`, `encoder_layers + 1` tensors, 0 at pads, all on the
            path from embeddings to annotations.

        Raises:
            ValueError: If the inputs do not fit each other, or a token id is outside of the vocabulary.
        """
        mask = self._real_tokens(input_ids, inputs_embeds, attention_mask)
        columns = real_columns(mask)
        mask = columns.cut(mask)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        embedded = self._embedded(input_ids, inputs_embeds, mask, columns, self.word_embeddings)  # [B, L, E]
        if not output_hidden_states:
            return BaseModelOutput(last_hidden_state=columns.widen(self.recurrence(embedded, mask)[-1], 1))
        hidden_states = TensorRecorder(columns)
        embedded = hidden_states.record(embedded.masked_fill(~mask[..., None], 0))
        self.recurrence(embedded, mask, record=hidden_states.record)
        return BaseModelOutput(last_hidden_state=hidden_states.tensors[-1], hidden_states=tuple(hidden_states.tensors))


class RNNSearchModel(RNNSearchPreTrainedModel):
    """The encoder-decoder: for every target token what the next word is chosen by."""

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
        """Give the embeddings of target tokens, those of the source if they are shared."""
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
            attention_mask: `[B, Tk]`, 1 = real token, 0 = padding, in any arrangement; None means that all are real.
            decoder_input_ids: `[B, T]`, int, token ids of the target, or of its next part, if a state is given.
            decoder_attention_mask: `[B, T]`, or with the tokens that the state has read, as `attention_mask`. A token that is
                not real leaves the state untouched.
            encoder_outputs: What the encoder returned for this source, instead of `input_ids`.
            cache: The state to go on from, as an earlier call returned it. It holds what the source has to say, is not changed,
                and may be used again.
            past_key_values: The name of `cache` before transformers 5.24.
            inputs_embeds: `[B, Tk, embedding_size]`, instead of `input_ids`.
            decoder_inputs_embeds: `[B, T, embedding_size]`, instead of `decoder_input_ids`.
            use_cache: Whether to return the state to go on from; None takes `config.use_cache`.
            output_attentions: Whether to return the attention weights.
            output_hidden_states: Whether to return embeddings and states.
            **kwargs: Accepted as by every transformers model.

        Returns:
            `last_hidden_state` `[B, T, output_size]`, what the next words are chosen by; `cache` (before transformers 5.24
            `past_key_values`); `decoder_hidden_states`, the embeddings and the states of each layer, 0 at pads;
            `cross_attentions`, one map `[B, heads, T, Tk]`, exactly 0 at pads of either side; and the same of the encoder.
            Gradients reach hidden states and attentions: what is above them in the model is computed from these very tensors.
            As every hidden state, an attention map has the gradient of what is computed from it above its own layer.
            A source without a real token has weights and contexts of 0, and begins with the bias of the first state.

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
        target = self._inputs(decoder_input_ids, decoder_inputs_embeds, "decoder_")
        mask, (rows, time) = self._target_mask(target, decoder_attention_mask, state), target.shape[:2]
        columns = RealColumns(0, time, time) if mask is None or use_cache else real_columns(mask)
        mask = None if mask is None else columns.cut(mask)  # [B, L]
        words = self._embedded(
            decoder_input_ids, decoder_inputs_embeds, mask, columns, self.get_target_embeddings(), "decoder_"
        )
        words = words if mask is None else words.masked_fill(~mask[..., None], 0)  # [B, L, E]
        source = None
        if encoded is not None and state is None:
            source = self._source(encoded.last_hidden_state, attention_mask, rows)
        hidden_states = TensorRecorder(columns) if output_hidden_states else None
        attentions = TensorRecorder(columns) if output_attentions else None
        if hidden_states is not None:
            words = hidden_states.record(words)
        decoded = self.decoder(words, mask, state, source, use_cache, hidden_states, attentions)
        features = self.output(decoded.states[-1], words, decoded.contexts, mask)  # [B, L, output_size]
        return Seq2SeqModelOutput(
            last_hidden_state=columns.widen(features, 1),
            decoder_hidden_states=None if hidden_states is None else tuple(hidden_states.tensors),
            cross_attentions=None if attentions is None else tuple(attentions.tensors),
            encoder_last_hidden_state=None if encoded is None else encoded.last_hidden_state,
            encoder_hidden_states=None if encoded is None else encoded.hidden_states,
            **{STATE: decoded.state},
        )

    def _source(self, memory: torch.Tensor, attention_mask, rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """List what the decoder begins with: annotations, their mask, the backward encoder at the first real token."""
        if len(memory) != rows:
            raise ValueError(f"The source has {len(memory)} rows, the target has {rows}.")
        mask = real_token_mask(memory.shape[:2], memory.device, attention_mask)
        summary = self.encoder.recurrence.last_state(memory, mask)[:, memory.shape[2] // 2 :]
        return memory, mask, summary

    def _target_mask(self, target: torch.Tensor, attention_mask, state: DecodingState | None) -> torch.Tensor | None:
        """Find the mask `[B, T]`, bool, of the target tokens that are to be read, and see that the state fits them."""
        rows, time = target.shape[:2]
        if time == 0:
            raise ValueError("The target has no column: it begins with config.decoder_start_token_id at least.")
        if state is not None and state.batch_size != rows:
            raise ValueError(
                f"The state to go on from has {state.batch_size} rows, the target has {rows}: "
                "state.batch_repeat_interleave(n) makes n rows of each, state.batch_select_indices(rows) takes some."
            )
        if attention_mask is None:
            return None
        seen = 0 if state is None else state.get_seq_length()
        if seen and attention_mask.shape[-1] == seen + time:
            attention_mask = attention_mask[:, seen:]
        return real_token_mask(target.shape[:2], target.device, attention_mask)


class RNNSearchForConditionalGeneration(RNNSearchPreTrainedModel, StatefulGenerationMixin):
    """The encoder-decoder with a distribution over the next word: it is trained with labels, and `generate()` works."""

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
        """Score the next words of a target; the inputs are those of `RNNSearchModel`.

        Args:
            input_ids: See `RNNSearchModel`, as all that is not listed here.
            attention_mask: See there.
            decoder_input_ids: See there; None makes them of the labels.
            decoder_attention_mask: See there. None with labels reads a row up to its last label, and no pad before its first.
            encoder_outputs: See there.
            cache: See there.
            past_key_values: See there.
            inputs_embeds: See there.
            decoder_inputs_embeds: See there.
            labels: `[B, T]`, int, the word to come after each target token, -100 where there is none.
            use_cache: See there; with labels no state is returned.
            num_items_in_batch: Number of labels in all batches of a step, by which Trainer has the loss divided.
            **kwargs: Passed on to `RNNSearchModel`.

        Returns:
            `loss` if there are labels, `logits` `[B, T, V]`, and what `RNNSearchModel` returns beside its last hidden state.

        Raises:
            ValueError: As `RNNSearchModel`; if labels are outside of the vocabulary, of another shape, or longer than
                `config.max_target_length`.
        """
        if labels is not None:
            self._check_length(labels)
            use_cache = False
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
            if decoder_input_ids is not None and decoder_attention_mask is None:
                decoder_attention_mask = _labelled_part(decoder_input_ids, labels, self.config.pad_token_id)
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
            mask = real_token_mask(features.shape[:2], features.device, decoder_attention_mask[:, -features.shape[1] :])
            logits = over_real_tokens(self.lm_head, features, mask, self.lm_head.out_features)  # [B, T, V]
        loss = None if labels is None else classification_loss(logits, labels, num_items_in_batch, mask)
        beside = {key: value for key, value in outputs.items() if key != "last_hidden_state"}
        return Seq2SeqLMOutput(loss=loss, logits=logits, **beside)

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Shift labels `[B, T]` to the right: what the decoder reads to predict them, as collators ask for it.

        `config.decoder_start_token_id` stands where the first label of a row is, and `config.pad_token_id` wherever there is
        no label to read, so that labels padded on the left lead to targets padded on the left.

        Raises:
            ValueError: If one of the two ids is missing, or `labels` is no batch.
        """
        if labels.dim() != 2 or labels.shape[1] == 0:
            raise ValueError(f"`labels` has shape {list(labels.shape)}, expected [batch, time] with at least the end token.")
        ids = {name: getattr(self.config, name) for name in ("decoder_start_token_id", "pad_token_id")}
        for name, value in ids.items():
            if value is None:
                raise ValueError(f"config.{name} is None, targets cannot be read without it: set it to an id of the tokenizer.")
        labelled = labels != IGNORED
        words = labels.masked_fill(~labelled, ids["pad_token_id"])
        begins = labelled & (labelled.cumsum(dim=1) == 1)
        begins[:, :1] |= ~labelled.any(dim=1, keepdim=True)
        return pad(words, (1, -1), value=ids["pad_token_id"]).masked_fill(begins, ids["decoder_start_token_id"])

    def _check_length(self, labels: torch.Tensor) -> None:
        limit = self.config.max_target_length
        if limit is not None and labels.shape[-1] > limit:
            check_values(
                labels[..., limit:] == IGNORED,
                lambda: (
                    f"`labels` has {labels.shape[-1]} columns, config.max_target_length={limit}: cut targets in the tokenizer "
                    f"(truncation=True, max_length={limit}), or set it to None."
                ),
                f"labels are longer than max_target_length={limit}",
            )


def _labelled_part(ids: torch.Tensor, labels: torch.Tensor, pad_token_id: int | None) -> torch.Tensor | None:
    """Tell which target tokens `[B, T]` are to be read for the labels: up to the last label, but pads before the first."""
    if ids.shape != labels.shape:
        return None
    labelled = labels != IGNORED
    begun = (labelled | (ids != pad_token_id)).cumsum(dim=1) > 0
    return begun & (labelled.flip(1).cumsum(dim=1).flip(1) > 0)


__all__ = ["RNNSearchForConditionalGeneration", "RNNSearchModel", "RNNSearchPreTrainedModel"]
