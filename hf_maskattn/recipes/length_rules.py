"""What a recipe may not say about lengths: numbers with which nothing would be left to read or to write."""

from typing import Any

_LEAST = {
    ("data", "max_length"): 1,
    ("data", "max_target_length"): 1,
    # The token that the decoder starts from counts.
    ("training", "generation_max_length"): 2,
    ("training", "generation_num_beams"): 1,
}


def check_lengths(groups: dict[str, dict[str, Any]]) -> None:
    """Refuse lengths that are too small.

    Args:
        groups: Groups of a recipe, as they were set.

    Raises:
        ValueError: Names the key and the value.
    """
    for (group, key), least in _LEAST.items():
        value = groups[group].get(key)
        if value is not None and value < least:
            raise ValueError(f"{group}.{key}={value} must be at least {least}.")
