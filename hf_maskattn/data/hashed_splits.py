"""Texts put into splits by their own hashes, so that a text stays where it is whatever else a corpus holds."""

import hashlib
from collections.abc import Iterable


def hashed_splits(texts: Iterable[str]) -> dict[str, list[str]]:
    """Put each text into a split by its SHA-256.

    Args:
        texts: The texts, each of them once.

    Returns:
        The texts of `"train"`, `"validation"` and `"test"` (about 80, 10 and 10 percent), in the order of their hashes.
    """
    splits: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for number, text in sorted((int(hashlib.sha256(text.encode()).hexdigest(), 16), text) for text in texts):
        splits[{8: "validation", 9: "test"}.get(number % 10, "train")].append(text)
    return splits
