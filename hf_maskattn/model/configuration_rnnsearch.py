"""Configuration of the recurrent encoder-decoder."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from .configuration_maskattn import check_widths, probability_field, size_field
from .remote_code import warn_about_newer_code

AUTO_MAP = {
    "AutoConfig": "configuration_rnnsearch.RNNSearchConfig",
    "AutoModel": "modeling_rnnsearch.RNNSearchModel",
    "AutoModelForSeq2SeqLM": "modeling_rnnsearch.RNNSearchForConditionalGeneration",
}


@strict
class RNNSearchConfig(PreTrainedConfig):
    """Configuration of `RNNSearchModel` and `RNNSearchForConditionalGeneration`.

    Args:
        vocab_size: Number of tokens of the target, which is what `generate()` takes this name for.
        source_vocab_size: Number of tokens of the source; None where source and target have one vocabulary.
        embedding_size: Width of a token embedding.
        hidden_size: Width of the annotations, the states of the encoder in both directions together; even.
        encoder_layers: Number of recurrent layers of the encoder, also known as `num_hidden_layers`.
        decoder_hidden_size: Width of the state of each layer of the decoder; None takes `hidden_size`.
        decoder_layers: Number of recurrent layers of the decoder, of which the first attends.
        rnn_type: "lstm" or "gru".
        attention_size: Width in which states and annotations are compared, all heads together.
        num_attention_heads: Number of attention heads; divides `attention_size` and `hidden_size`.
        attention_query: Which state of the decoder asks for the context of a step: the "previous" one, so that the step can
            read the context (Bahdanau et al. 2015), or the "current" one, so that a whole target is taught in one kernel
            (Luong et al. 2015).
        input_feeding: Whether a step reads the context of the step before; with the "current" query alone.
        attention_implementation: "eager", "ragged" or "chunked", as in `MaskAttnConfig`. The weights of a model do not depend
            on it.
        output_layer: What a word is chosen by: "maxout" over pairs (Bahdanau et al. 2015), or the "linear" projection alone.
        output_size: Width of the output layer; None takes `embedding_size`.
        share_embeddings: Whether source and target have one embedding matrix.
        tie_word_embeddings: Whether words are chosen with the embedding matrix of the target.
        hidden_dropout_prob: Dropout between recurrent layers, and on states and contexts before the output layer.
        embedding_dropout_prob: Dropout on the embeddings.
        attention_dropout_prob: Chance of a token to be left out of the attention in training; weights still sum to one.
        max_target_length: Longest target that may be trained, in tokens; longer labels are refused. None allows any.
        pad_token_id: Token id that collators pad with, and that labels of -100 become where a decoder reads them.
        bos_token_id: Token id that begins a text.
        eos_token_id: Token id, or ids, that end a text.
        decoder_start_token_id: Token id that the decoder reads first.
        use_cache: Whether a forward pass without labels returns the state to go on from.

    Raises:
        StrictDataclassFieldValidationError: If a field has a wrong type or is none of its choices, a size is below 1, or a
            probability is not in [0, 1].
        StrictDataclassClassValidationError: If two fields exclude each other.
    """

    model_type = "maskattn_rnnsearch"
    attribute_map = {"num_hidden_layers": "encoder_layers"}  # noqa: RUF012 (an annotation would make it a field)
    keys_to_ignore_at_inference = [  # noqa: RUF012
        "cache",
        "past_key_values",
        "encoder_last_hidden_state",
        "encoder_hidden_states",
        "encoder_attentions",
        "decoder_hidden_states",
        "decoder_attentions",
        "cross_attentions",
    ]
    base_model_fsdp_plan = {"encoder.recurrence.layers.*": "free_full_weight", "decoder": "free_full_weight"}  # noqa: RUF012

    vocab_size: int = size_field("vocab_size", 30000)
    source_vocab_size: int | None = None
    embedding_size: int = size_field("embedding_size", 256)
    hidden_size: int = size_field("hidden_size", 512)
    encoder_layers: int = size_field("encoder_layers", 1)
    decoder_hidden_size: int | None = None
    decoder_layers: int = size_field("decoder_layers", 1)
    rnn_type: Literal["lstm", "gru"] = "gru"
    attention_size: int = size_field("attention_size", 256)
    num_attention_heads: int = size_field("num_attention_heads", 1)
    attention_query: Literal["previous", "current"] = "previous"
    input_feeding: bool = False
    attention_implementation: Literal["eager", "ragged", "chunked"] = "chunked"
    output_layer: Literal["maxout", "linear"] = "maxout"
    output_size: int | None = None
    share_embeddings: bool = True
    tie_word_embeddings: bool = True
    hidden_dropout_prob: float | int = probability_field("hidden_dropout_prob", 0.1)
    embedding_dropout_prob: float | int = probability_field("embedding_dropout_prob", 0.1)
    attention_dropout_prob: float | int = probability_field("attention_dropout_prob", 0.0)
    max_target_length: int | None = None
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = 1
    use_cache: bool = True
    is_encoder_decoder: bool = True

    def get_text_config(self, decoder=None, encoder=None):
        """Give this configuration for either side: it describes both, and none of its fields changes its meaning for one."""
        return self

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """Build what a `config.json` says, as every transformers configuration does; warns if newer code wrote it."""
        warn_about_newer_code(config_dict.get("code_version"))
        return super().from_dict(config_dict, **kwargs)

    def validate_vocabularies(self):
        """Refuse a vocabulary without a token or without the pad, and one embedding matrix for two vocabularies."""
        if self.source_vocab_size is not None and self.source_vocab_size < 1:
            raise ValueError(f"source_vocab_size must be at least 1, got {self.source_vocab_size}.")
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(
                f"pad_token_id={self.pad_token_id} is outside of the vocabulary, which has ids 0 to {self.vocab_size - 1}: "
                "take the id of the tokenizer, or None."
            )
        if self.share_embeddings and self.source_vocab_size not in (None, self.vocab_size):
            raise ValueError(
                f"share_embeddings=True needs one vocabulary, got vocab_size={self.vocab_size} and "
                f"source_vocab_size={self.source_vocab_size}: set share_embeddings=False."
            )

    def validate_encoder_layers(self):
        """Refuse an encoder without layers that is set as `num_hidden_layers`, which the check of the field does not see."""
        if self.encoder_layers < 1:
            raise ValueError(f"encoder_layers must be at least 1, got {self.encoder_layers}.")

    def validate_output_size(self):
        """Refuse to choose words by embeddings of another width."""
        if self.tie_word_embeddings and self.output_size not in (None, self.embedding_size):
            raise ValueError(
                f"tie_word_embeddings=True needs output_size={self.embedding_size} as embedding_size, got {self.output_size}: "
                "leave it None, or set tie_word_embeddings=False."
            )

    def validate_widths(self):
        """Refuse widths that cannot be divided among directions or heads."""
        check_widths(self.hidden_size, self.attention_size, self.num_attention_heads, bidirectional=True)


__all__ = ["RNNSearchConfig"]
