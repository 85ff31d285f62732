"""Fields of a configuration that refuse a value where it is set, and the rules for sizes that depend on each other.

`transformers.utils.type_validators` has such fields, whose messages name neither the field nor, of an interval, the value.
"""

from typing import Any

from huggingface_hub.dataclasses import validated_field


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
