"""Configuration of the recurrent encoder-decoder."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from .configuration_maskattn import deviation_field, probability_field, size_field, validate_sizes
from .remote_code import warn_about_newer_code

AUTO_MAP = {
    "AutoConfig": "configuration_rnnsearch.RNNSearchConfig",
    "AutoModel": "modeling_rnnsearch.RNNSearchModel",
    "AutoModelForSeq2SeqLM": "modeling_rnnsearch.RNNSearchForConditionalGeneration",
}


@strict
class RNNSearchConfig(PreTrainedConfig):
    """Configuration of [`RNNSearchModel`] and [`RNNSearchForConditionalGeneration`].

    Args:
        vocab_size (`int`, *optional*, defaults to 30000):
            Size of the target vocabulary, which `generate()` reads from this field.
        source_vocab_size (`int`, *optional*):
            Size of the source vocabulary. If `None`, source and target have the same vocabulary.
        embedding_size (`int`, *optional*, defaults to 256):
            Size of the token embeddings.
        hidden_size (`int`, *optional*, defaults to 512):
            Size of the annotations, the encoder states of both directions together. Must be even.
        encoder_layers (`int`, *optional*, defaults to 1):
            Number of recurrent layers of the encoder; `num_hidden_layers` is an alias.
        decoder_hidden_size (`int`, *optional*):
            Size of the state of each decoder layer. If `None`, `hidden_size` is used.
        decoder_layers (`int`, *optional*, defaults to 1):
            Number of recurrent layers of the decoder. The first layer attends to the source.
        rnn_type (`str`, *optional*, defaults to `"gru"`):
            Type of the recurrent layers, `"lstm"` or `"gru"`.
        attention_size (`int`, *optional*, defaults to 256):
            Size of the projected queries and keys, all heads together.
        num_attention_heads (`int`, *optional*, defaults to 1):
            Number of attention heads. Must divide `attention_size` and `hidden_size`.
        attention_query (`str`, *optional*, defaults to `"previous"`):
            Decoder state that is the query of a step: `"previous"`, so that the step reads the context (Bahdanau et al. 2015),
            or `"current"`, so that teacher forcing runs a whole target in one kernel (Luong et al. 2015).
        input_feeding (`bool`, *optional*, defaults to `False`):
            Whether a step reads the context of the previous step. Requires `attention_query="current"`.
        attention_implementation (`str`, *optional*, defaults to `"chunked"`):
            `"eager"`, `"ragged"` or `"chunked"`, as in [`MaskAttnConfig`]. The weights of a model do not depend on it.
        output_layer (`str`, *optional*, defaults to `"maxout"`):
            Layer between the decoder and the logits: `"maxout"` over pairs (Bahdanau et al. 2015), or a `"linear"` projection.
        output_size (`int`, *optional*):
            Size of the output layer. If `None`, `embedding_size` is used.
        share_embeddings (`bool`, *optional*, defaults to `True`):
            Whether source and target have the same embeddings.
        tie_word_embeddings (`bool`, *optional*, defaults to `True`):
            Whether the logits are computed with the target embeddings.
        hidden_dropout_prob (`float`, *optional*, defaults to 0.1):
            Dropout probability between recurrent layers, and of states and contexts before the output layer.
        embedding_dropout_prob (`float`, *optional*, defaults to 0.1):
            Dropout probability of the embeddings.
        attention_dropout_prob (`float`, *optional*, defaults to 0.0):
            Probability that a token is excluded from the attention in training. The weights still sum to one.
        initializer_range (`float`, *optional*):
            Standard deviation of the initial embeddings. If `None`, `embedding_size ** -0.5`, with which tied
            embeddings start with a nearly uniform distribution over the vocabulary.
        max_target_length (`int`, *optional*):
            Largest number of tokens of a target in training; longer labels raise an error. `None` sets no limit.
        pad_token_id (`int`, *optional*, defaults to 0):
            Id of the padding token. It replaces labels of -100 in the inputs of the decoder.
        bos_token_id (`int`, *optional*, defaults to 1):
            Id of the beginning-of-sequence token.
        eos_token_id (`int` or `list[int]`, *optional*, defaults to 2):
            Id, or ids, of the end-of-sequence token.
        decoder_start_token_id (`int`, *optional*, defaults to 1):
            Id of the first token that the decoder reads.
        use_cache (`bool`, *optional*, defaults to `True`):
            Whether a forward pass without labels returns the state of the decoder, to continue from.

    Raises:
        StrictDataclassFieldValidationError: If a field has a wrong type or value.
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
    initializer_range: float | int | None = deviation_field("initializer_range", None)
    max_target_length: int | None = None
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = 1
    use_cache: bool = True
    is_encoder_decoder: bool = True

    def get_text_config(self, decoder=None, encoder=None):
        """Return this configuration, which describes both encoder and decoder."""
        return self

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """Build a configuration from the dictionary of a `config.json`; warns if it was saved by newer code."""
        warn_about_newer_code(config_dict.get("code_version"))
        return super().from_dict(config_dict, **kwargs)

    def validate_vocabularies(self):
        """Validate the sizes of the vocabularies, `pad_token_id` and `share_embeddings`."""
        if self.source_vocab_size is not None and self.source_vocab_size < 1:
            raise ValueError(f"source_vocab_size must be at least 1, got {self.source_vocab_size}.")
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(
                f"pad_token_id must be in the vocabulary, 0 to {self.vocab_size - 1}, got {self.pad_token_id}. Set the id "
                "of the tokenizer, or None."
            )
        if self.share_embeddings and self.source_vocab_size not in (None, self.vocab_size):
            raise ValueError(
                f"source_vocab_size must be None or {self.vocab_size} as vocab_size if share_embeddings is True, got "
                f"{self.source_vocab_size}. Set share_embeddings=False."
            )

    def validate_encoder_layers(self):
        """Validate `encoder_layers` that were set as `num_hidden_layers`, which the field itself does not validate."""
        if self.encoder_layers < 1:
            raise ValueError(f"encoder_layers must be at least 1, got {self.encoder_layers}.")

    def validate_output_size(self):
        """Validate that tied embeddings have the size of the output layer."""
        if self.tie_word_embeddings and self.output_size not in (None, self.embedding_size):
            raise ValueError(
                f"output_size must be None or {self.embedding_size} as embedding_size if tie_word_embeddings is True, got "
                f"{self.output_size}. Set tie_word_embeddings=False."
            )

    def validate_sizes(self):
        """Validate that sizes can be divided between directions and heads."""
        validate_sizes(self.hidden_size, self.attention_size, self.num_attention_heads, bidirectional=True)


__all__ = ["RNNSearchConfig"]
