"""Configuration of the masked recurrent encoder."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict, validated_field
from transformers.configuration_utils import PreTrainedConfig

from .remote_code import warn_about_newer_code


def size_field(name: str, default: int) -> Any:
    """Declare a field whose values are at least 1.

    Args:
        name: Name of the field.
        default: Its default.
    """

    def check(value: int) -> None:
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")

    return validated_field(check, default=default)


def probability_field(name: str, default: float | None) -> Any:
    """Declare a field whose values are in [0, 1].

    Args:
        name: Name of the field.
        default: Its default; where it is None, None is a value too.
    """

    def check(value: float | None) -> None:
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}.")

    return validated_field(check, default=default)


def check_widths(hidden_size: int, attention_size: int, num_attention_heads: int, bidirectional: bool) -> None:
    """Refuse widths that cannot be divided among directions or heads.

    Raises:
        ValueError: If `hidden_size` is odd in both directions together, or heads do not divide a width.
    """
    if bidirectional and hidden_size % 2:
        raise ValueError(
            f"hidden_size must be even where layers are bidirectional, got {hidden_size}. Each direction has half of it: set "
            f"hidden_size={hidden_size + 1}."
        )
    for name, size in (("attention_size", attention_size), ("hidden_size", hidden_size)):
        if size % num_attention_heads:
            raise ValueError(
                f"num_attention_heads must divide {name}={size}, got {num_attention_heads}. Set another number of heads, or "
                f"{name}={size + num_attention_heads - size % num_attention_heads}."
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
    """Configuration of `MaskAttnModel` and its heads.

    Args:
        vocab_size: Number of tokens that have an embedding.
        embedding_size: Width of a token embedding.
        hidden_size: Width of `last_hidden_state`, both directions together; even if bidirectional.
        num_hidden_layers: Number of recurrent layers.
        rnn_type: "lstm" or "gru".
        bidirectional: Whether each layer reads the row in both directions.
        attention_size: Width in which query and memory are compared, all heads together.
        num_attention_heads: Number of attention heads; divides `attention_size` and `hidden_size`.
        attention_query: What asks when a sequence is pooled: a "learned" vector, the "last" state or the "mean" state.
        attention_implementation: "eager" (pads removed before the softmax), "ragged" (pads never enter the graph) or
            "chunked" (as eager, in tiles, for many queries). The weights of a model do not depend on it: a checkpoint loads
            under any.
        hidden_dropout_prob: Dropout between recurrent layers.
        embedding_dropout_prob: Dropout on the embeddings.
        attention_dropout_prob: Chance of a token to be left out of the attention in training; weights still sum to one.
        classifier_dropout: Dropout before the head of a classifier; None takes `hidden_dropout_prob`.
        pad_token_id: Token id that collators pad with. Padding is told by `attention_mask` alone.
        tie_word_embeddings: Whether the masked language model predicts with the embedding matrix.
        tag_scheme: Scheme of the tags of the training data of a token classifier: "IOB1", "IOB2", "BIOES" or "BILOU", whose
            entities the labels mark in IOB2, or "none" for tags that mark no entities. None if it is not known.

    Raises:
        StrictDataclassFieldValidationError: If a field has a wrong type or is none of its choices, a size is below 1, or a
            probability is not in [0, 1].
        StrictDataclassClassValidationError: If `hidden_size` or `attention_size` cannot be divided among directions or heads.
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
    attention_query: Literal["learned", "last", "mean"] = "learned"
    attention_implementation: Literal["eager", "ragged", "chunked"] = "eager"
    hidden_dropout_prob: float | int = probability_field("hidden_dropout_prob", 0.1)
    embedding_dropout_prob: float | int = probability_field("embedding_dropout_prob", 0.1)
    attention_dropout_prob: float | int = probability_field("attention_dropout_prob", 0.0)
    classifier_dropout: float | int | None = probability_field("classifier_dropout", None)
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    tag_scheme: str | None = None

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """Build what a `config.json` says, as every transformers configuration does; warns if newer code wrote it."""
        warn_about_newer_code(config_dict.get("code_version"))
        return super().from_dict(config_dict, **kwargs)

    def validate_widths(self):
        """Refuse widths that cannot be divided among directions or heads."""
        check_widths(self.hidden_size, self.attention_size, self.num_attention_heads, bidirectional=self.bidirectional)


__all__ = ["MaskAttnConfig"]
