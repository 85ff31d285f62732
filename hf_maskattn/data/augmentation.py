"""Augmentation of texts for distillation: a teacher labels the new texts."""

import random
from collections.abc import Sequence

Words = tuple[str | None, ...]
"""Words of a text, None where one is masked."""

_MASKING_PROBABILITY = 0.1
_NGRAM_PROBABILITY = 0.25
_MAX_NGRAM = 5


def augment_texts(texts: Sequence[str], copies: int, seed: int) -> list[Words]:
    """Derive new texts from each text.

    Each word, by white space, is masked with probability 0.1. With probability 0.25 only n consecutive words are kept then,
    with n drawn from 1 to 5.

    Args:
        texts: The texts.
        copies: Number of new texts to derive from each one.
        seed: Seed. The same seed gives the same texts.

    Returns:
        New texts, different from each other and from `texts`, in the order of `texts`. There are fewer than `copies` for each
        one where they repeat.

    Source:
        Tang et al. (2019), section 3.3, without the replacement of words by others with the same part of speech, which needs
        a tagger.
    """
    rng = random.Random(seed)
    seen: set[Words] = {tuple(text.split()) for text in texts}
    augmented: list[Words] = []
    for text in texts:
        words = text.split()
        for _ in range(copies if words else 0):
            new = _sample(words, rng)
            if new not in seen and any(word is not None for word in new):
                seen.add(new)
                augmented.append(new)
    return augmented


def _sample(words: Sequence[str], rng: random.Random) -> Words:
    new = tuple(None if rng.random() < _MASKING_PROBABILITY else word for word in words)
    if rng.random() >= _NGRAM_PROBABILITY:
        return new
    length = min(rng.randint(1, _MAX_NGRAM), len(new))
    first = rng.randrange(len(new) - length + 1)
    return new[first : first + length]


def join_words(words: Words, mask_token: str) -> str:
    """Join the words of a text with spaces, with `mask_token` for each one that is masked."""
    return " ".join(mask_token if word is None else word for word in words)
