"""Configuration of the masked recurrent encoder."""

import copy
import math
from typing import Any, Literal

from huggingface_hub.dataclasses import strict, validated_field
from transformers.configuration_utils import PreTrainedConfig

from .remote_code import warn_about_newer_code


def size_field(name: str, default: int) -> Any:
    """Declare a field of integers that are at least 1.

    Args:
        name: Name of the field.
        default: Default value.
    """

    def validate(value: int) -> None:
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")

    return validated_field(validate, default=default)


def probability_field(name: str, default: float | None) -> Any:
    """Declare a field of probabilities.

    Args:
        name: Name of the field.
        default: Default value; if it is None, None is valid too.
    """

    def validate(value: float | None) -> None:
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}.")

    return validated_field(validate, default=default)


def deviation_field(name: str, default: float | None) -> Any:
    """Declare a field of standard deviations, positive and finite.

    Args:
        name: Name of the field.
        default: Default value; if it is None, None is valid too.
    """

    def validate(value: float | None) -> None:
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}.")

    return validated_field(validate, default=default)


def validate_sizes(hidden_size: int, attention_size: int, num_attention_heads: int, bidirectional: bool) -> None:
    """Validate that sizes can be divided between directions and heads.

    Raises:
        ValueError: If `hidden_size` is odd and `bidirectional` is True, or `num_attention_heads` does not divide a size.
    """
    if bidirectional and hidden_size % 2:
        raise ValueError(
            f"hidden_size must be even for bidirectional layers, got {hidden_size}. Each direction has half of it: set "
            f"hidden_size={hidden_size + 1}."
        )
    for name, size in (("attention_size", attention_size), ("hidden_size", hidden_size)):
        if size % num_attention_heads:
            raise ValueError(
                f"num_attention_heads must divide {name}, got {num_attention_heads} and {size}. Set another number of heads, "
                f"or {name}={size + num_attention_heads - size % num_attention_heads}."
            )


AUTO_MAP = {
    "AutoConfig": "configuration_maskattn.MaskAttnConfig",
    "AutoModel": "modeling_maskattn.MaskAttnModel",
    "AutoModelForSequenceClassification": "modeling_maskattn.MaskAttnForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_maskattn.MaskAttnForTokenClassification",
    "AutoModelForMaskedLM": "modeling_maskattn.MaskAttnForMaskedLM",
}


@strict
class MaskAttnConfig(PreTrainedConfig):
    """Configuration of [`MaskAttnModel`] and its heads.

    Args:
        vocab_size (`int`, *optional*, defaults to 30522):
            Number of tokens that have an embedding.
        embedding_size (`int`, *optional*, defaults to 128):
            Size of the token embeddings.
        hidden_size (`int`, *optional*, defaults to 256):
            Size of `last_hidden_state`, both directions together. Must be even if `bidirectional` is `True`.
        num_hidden_layers (`int`, *optional*, defaults to 1):
            Number of recurrent layers.
        rnn_type (`str`, *optional*, defaults to `"lstm"`):
            Type of the recurrent layers, `"lstm"` or `"gru"`.
        bidirectional (`bool`, *optional*, defaults to `True`):
            Whether each layer reads a row in both directions.
        attention_size (`int`, *optional*, defaults to 128):
            Size of the projected queries and keys, all heads together.
        num_attention_heads (`int`, *optional*, defaults to 1):
            Number of attention heads. Must divide `attention_size` and `hidden_size`.
        attention_query (`str`, *optional*, defaults to `"bias"`):
            Query of the pooling over a row: none but a trained `"bias"` of the projected states (Yang et al. 2016), a
            `"learned"` vector, the `"last"` state, or the `"mean"` state.
        attention_implementation (`str`, *optional*, defaults to `"eager"`):
            `"eager"` (scores of padding are filled before the softmax), `"ragged"` (padding never enters the graph), or
            `"chunked"` (as `"eager"`, in tiles, for many queries). The weights of a model do not depend on it: a checkpoint can
            be loaded with any implementation.
        hidden_dropout_prob (`float`, *optional*, defaults to 0.1):
            Dropout probability between recurrent layers.
        embedding_dropout_prob (`float`, *optional*, defaults to 0.1):
            Dropout probability of the embeddings.
        attention_dropout_prob (`float`, *optional*, defaults to 0.0):
            Probability that a token is excluded from the attention in training. The weights still sum to one.
        classifier_dropout (`float`, *optional*):
            Dropout probability of the classification head. If `None`, `hidden_dropout_prob` is used.
        initializer_range (`float`, *optional*, defaults to 0.1):
            Standard deviation of the initial embeddings.
        pad_token_id (`int`, *optional*, defaults to 0):
            Id of the padding token that collators pad with. The model reads `attention_mask` only.
        tie_word_embeddings (`bool`, *optional*, defaults to `True`):
            Whether the output layer of the masked language model is tied to the embeddings.
        use_crf (`bool`, *optional*, defaults to `False`):
            Whether a token classifier has a linear-chain CRF over the labels of a row. Its `logits` in evaluation mode are
            max-marginals, whose `argmax` is the most probable sequence. IOB2 labels follow their scheme, unless `tag_scheme` is
            `"none"`. Checkpoints of either kind load with either value.
        tag_scheme (`str`, *optional*):
            Scheme of the tags in the training data of a token classifier: `"IOB1"`, `"IOB2"`, `"BIOES"` or `"BILOU"` (labels
            are converted to IOB2), or `"none"` for tags that are not entities. `None` if it is unknown.
        sequence_label_names (`list[str]`, *optional*):
            Names of the labels of sequences, by id, of a model for joint classification. Its `id2label` has the labels of
            tokens.

    Raises:
        StrictDataclassFieldValidationError: If a field has a wrong type or value.
        StrictDataclassClassValidationError: If `hidden_size` or `attention_size` cannot be divided between directions or heads.
    """

    model_type = "maskattn"
    keys_to_ignore_at_inference = ["past_key_values", "hidden_states", "attentions"]  # noqa: RUF012 (an annotation would make it a field)
    base_model_fsdp_plan = {  # noqa: RUF012
        "word_embeddings": "free_full_weight",
        "recurrence.layers.*": "free_full_weight",
        "pooling": "free_full_weight",
    }

    vocab_size: int = size_field("vocab_size", 30522)
    embedding_size: int = size_field("embedding_size", 128)
    hidden_size: int = size_field("hidden_size", 256)
    num_hidden_layers: int = size_field("num_hidden_layers", 1)
    rnn_type: Literal["lstm", "gru"] = "lstm"
    bidirectional: bool = True
    attention_size: int = size_field("attention_size", 128)
    num_attention_heads: int = size_field("num_attention_heads", 1)
    attention_query: Literal["bias", "learned", "last", "mean"] = "bias"
    attention_implementation: Literal["eager", "ragged", "chunked"] = "eager"
    hidden_dropout_prob: float | int = probability_field("hidden_dropout_prob", 0.1)
    embedding_dropout_prob: float | int = probability_field("embedding_dropout_prob", 0.1)
    attention_dropout_prob: float | int = probability_field("attention_dropout_prob", 0.0)
    classifier_dropout: float | int | None = probability_field("classifier_dropout", None)
    initializer_range: float | int = deviation_field("initializer_range", 0.1)
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    use_crf: bool = False
    tag_scheme: str | None = None
    sequence_label_names: list[str] | None = None

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """Build a configuration from the dictionary of a `config.json`; warns if it was saved by newer code."""
        warn_about_newer_code(config_dict.get("code_version"))
        # Configurations save every field. One that lacks this was written by hand, when the default was "learned".
        config_dict = {"attention_query": "learned", **config_dict}
        return super().from_dict(config_dict, **kwargs)

    def for_sequence_classification(self) -> "MaskAttnConfig":
        """Return a copy whose labels are those of sequences, for the head that classifies sequences alone."""
        config = copy.deepcopy(self)
        config.id2label = dict(enumerate(self.sequence_label_names or []))
        config.label2id = {name: number for number, name in config.id2label.items()}
        config.problem_type = "single_label_classification"
        config.sequence_label_names = config.tag_scheme = None
        return config

    def validate_sizes(self):
        """Validate that sizes can be divided between directions and heads."""
        validate_sizes(self.hidden_size, self.attention_size, self.num_attention_heads, bidirectional=self.bidirectional)


__all__ = ["MaskAttnConfig"]
