"""Decodes the predictions of tokens to labels of words and to entities, in the same way for scores and for `predict`."""

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import pre_tokenizers

from hf_maskattn.data.tag_encoding import HAS_NO_TOKEN, SHARES_TOKEN, find_first_tokens
from hf_maskattn.data.tag_schemes import continuing_tag, extract_entities
from hf_maskattn.data.tokenizers import WORDS_AND_PUNCTUATION

NO_LABEL = -1
"""Prediction for a word without a token if the labels lack "O"."""


def decode_words(logits: torch.Tensor, labels: torch.Tensor, *, names: Sequence[str]) -> torch.Tensor:
    """Predict the labels of the words of evaluated rows, for `Trainer(preprocess_logits_for_metrics=...)`.

    Args:
        logits: `[B, T, C]`.
        labels: `[B, T]`, int, from `label_words`, -100 where there is no word.
        names: Names of all labels of the data. The first C are those of the model.

    Returns:
        `[B, T]`, int. A word that shares the token of the previous word continues its tag, and a word without a token is "O".
    """
    predicted = logits.argmax(dim=-1)
    if not names:
        return predicted
    kinds = labels.div(len(names), rounding_mode="floor")
    ids = {name: index for index, name in enumerate(names)}
    continued = torch.tensor([ids.get(continuing_tag(name), index) for name, index in ids.items()], device=logits.device)
    shared = predicted.gather(1, last_positions(kinds == 0).clamp(min=0))
    predicted = torch.where(kinds == SHARES_TOKEN, continued[shared], predicted)
    return predicted.masked_fill(kinds == HAS_NO_TOKEN, ids.get("O", NO_LABEL))


def last_positions(mask: torch.Tensor) -> torch.Tensor:
    """Return the last position that is True, at or before each position: `[B, T]`, bool -> `[B, T]`, -1 if there is none."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, positions, -1).cummax(dim=1).values


def tag_words(
    texts: Sequence[str],
    spans: Sequence[Sequence[tuple[int, int]]],
    offsets: Sequence[Sequence[tuple[int, int]]],
    logits: torch.Tensor,
    names: Sequence[str],
) -> list[list[dict[str, Any]]]:
    """Predict the tags of the words of texts.

    Args:
        texts: The texts.
        spans: Start and end of each word, by text.
        offsets: Start and end of each token, by text.
        logits: `[B, T, C]`, of these tokens.
        names: Names of the labels of the model.

    Returns:
        By text, for each word `entity`, `score` (the probability of the tag at the first token of the
        word), `word`, `start` and `end`. Without a token, as beyond the maximum length, `entity` and `score` are None.
    """
    tokens = [find_first_tokens(*row) for row in zip(texts, spans, offsets, strict=True)]
    predicted = logits.argmax(dim=-1)
    scores = logits.float().softmax(dim=-1).gather(-1, predicted[..., None])[..., 0].tolist()  # [B, T]
    tagged = []
    for row, (text, ids) in enumerate(zip(texts, predicted.tolist(), strict=True)):
        words: list[dict[str, Any]] = []
        last = None
        for (start, end), token in zip(spans[row], tokens[row], strict=True):
            tag = None if token is None else names[ids[token]]
            if tag is not None and token == last:
                tag = continuing_tag(tag)
            last = token
            score = None if token is None else scores[row][token]
            words.append({"entity": tag, "score": score, "word": text[start:end], "start": start, "end": end})
        tagged.append(words)
    return tagged


def split_words(text: str) -> list[tuple[int, int]]:
    """Return start and end of the words and punctuation marks of a text."""
    words = pre_tokenizers.Split(WORDS_AND_PUNCTUATION, "removed", invert=True).pre_tokenize_str(text)
    return [span for _, span in words]


def group_entities(text: str, words: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Group the words of a text to entities.

    Args:
        text: The text.
        words: Its words, from `tag_words`. A word without a token is outside of entities.

    Returns:
        `entity_group`, `score` (the mean over its words), `word`, `start` and `end` of each entity.
    """
    entities = []
    for entity_type, first, last in extract_entities([word["entity"] or "O" for word in words]):
        start, end = words[first]["start"], words[last]["end"]
        score = sum(word["score"] for word in words[first : last + 1]) / (last + 1 - first)
        entities.append({"entity_group": entity_type, "score": score, "word": text[start:end], "start": start, "end": end})
    return entities
