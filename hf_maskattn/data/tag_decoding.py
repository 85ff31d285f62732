"""Decodes the predictions of tokens to labels of words and to entities, in the same way for scores and for `predict`."""

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedConfig

from hf_maskattn.data.tag_encoding import FOLLOWS_LOST_WORD, HAS_NO_TOKEN, SHARES_TOKEN, find_first_tokens, split_word_label
from hf_maskattn.data.tag_schemes import are_span_tags, continuing_tag, extract_entities
from hf_maskattn.data.tokenizers import WORDS_AND_PUNCTUATION
from hf_maskattn.model.crf import max_marginals, scheme_constraints

NO_LABEL = -1
"""Prediction for a word without a token if the labels lack "O"."""

_WORDS = Split(WORDS_AND_PUNCTUATION, "removed", invert=True)


def decode_words(
    logits: torch.Tensor, labels: torch.Tensor, *, names: Sequence[str], follows_scheme: bool = False
) -> torch.Tensor:
    """Predict the labels of the words of evaluated rows, for `Trainer(preprocess_logits_for_metrics=...)`.

    Args:
        logits: `[B, T, C]`.
        labels: `[B, T]`, int, from `label_words`, -100 where there is no word.
        names: Names of all labels of the data. The first C are those of the model.
        follows_scheme: Whether labels follow IOB2, so that the words of a row get the best sequence that it allows.

    Returns:
        `[B, T]`, int. A word that shares the token of the previous word continues its tag, and a word without a token is "O".
    """
    if not names:
        return logits.argmax(dim=-1)
    _, kinds = split_word_label(labels, len(names))
    is_own = (kinds == 0) | (kinds == FOLLOWS_LOST_WORD)
    predicted = decode_labels(logits, is_own, names[: logits.shape[-1]] if follows_scheme else ())
    ids = {name: index for index, name in enumerate(names)}
    continued = torch.tensor([ids.get(continuing_tag(name), index) for name, index in ids.items()], device=logits.device)
    shared = predicted.gather(1, last_positions(is_own).clamp(min=0))
    predicted = torch.where(kinds == SHARES_TOKEN, continued[shared], predicted)
    return predicted.masked_fill(kinds == HAS_NO_TOKEN, ids.get("O", NO_LABEL))


def decode_labels(logits: torch.Tensor, mask: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
    """Select the best label of each position, and the best sequence that IOB2 allows where these break it.

    Args:
        logits: `[B, T, C]`. The best sequence has the largest sum.
        mask: `[B, T]`, bool, whether a position belongs to the sequence of its row.
        names: Names of the C labels. Empty for labels that follow no scheme.

    Returns:
        `[B, T]`, int.

    Source:
        The decoding of a conditional random field (`hf_maskattn.model.crf`) whose transitions are 0 or minus infinity.
    """
    predicted = logits.argmax(dim=-1)
    if not names:
        return predicted
    forbidden, forbidden_first = (values.to(logits.device) for values in scheme_constraints(names))
    previous = last_positions(mask).roll(1, dims=1)
    previous[:, :1] = -1
    is_forbidden = torch.where(
        previous < 0, forbidden_first[predicted], forbidden[predicted.gather(1, previous.clamp(min=0)), predicted]
    )
    rows = (is_forbidden & mask).any(dim=1)
    if rows.any():
        transitions, start = (values.float().masked_fill(values, -float("inf")) for values in (forbidden, forbidden_first))
        scores = max_marginals(logits[rows].float(), mask[rows], transitions, start, torch.zeros_like(start))
        predicted[rows] = scores.argmax(dim=-1)
    return predicted


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
    *,
    follows_scheme: bool = False,
) -> list[list[dict[str, Any]]]:
    """Predict the tags of the words of texts.

    Args:
        texts: The texts.
        spans: Start and end of each word, by text.
        offsets: Start and end of each token, by text.
        logits: `[B, T, C]`, of these tokens.
        names: Names of the labels of the model.
        follows_scheme: Whether labels follow IOB2, as in `decode_words`.

    Returns:
        By text, for each word `entity`, `score` (the probability of the tag at the first token of the
        word), `word`, `start` and `end`. Without a token, as beyond the maximum length, `entity` and `score` are None.
    """
    tokens = [find_first_tokens(*row) for row in zip(texts, spans, offsets, strict=True)]
    is_word = torch.zeros(logits.shape[:2], dtype=torch.bool)
    for row, word_tokens in enumerate(tokens):
        is_word[row, [token for token in word_tokens if token is not None]] = True
    predicted = decode_labels(logits, is_word.to(logits.device), names if follows_scheme else ())
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


def find_entities(
    texts: Sequence[str],
    spans: Sequence[Sequence[tuple[int, int]]],
    offsets: Sequence[Sequence[tuple[int, int]]],
    logits: torch.Tensor,
    config: PreTrainedConfig,
) -> list[list[dict[str, Any]]]:
    """Find the entities of texts, or tag their words if the tags of a model mark no entities. Arguments as in `tag_words`.

    Returns:
        By text, what `group_entities` returns, or the words from `tag_words` that have a token.
    """
    names = [config.id2label[number] for number in range(config.num_labels)]
    scheme = getattr(config, "tag_scheme", None)
    tagged = tag_words(texts, spans, offsets, logits, names, follows_scheme=scheme not in (None, "none"))
    if are_span_tags(names, scheme):
        return [group_entities(text, words) for text, words in zip(texts, tagged, strict=True)]
    return [[word for word in words if word["entity"] is not None] for words in tagged]


def split_words(text: str) -> list[tuple[int, int]]:
    """Return start and end of the words and punctuation marks of a text."""
    return [span for _, span in _WORDS.pre_tokenize_str(text)]


def group_entities(text: str, words: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Group the words of a text, from `tag_words`, to entities. A word without a token is outside of entities.

    Returns:
        `entity_group`, `score` (the mean over its words), `word`, `start` and `end` of each entity.
    """
    entities = []
    for entity_type, first, last in extract_entities([word["entity"] or "O" for word in words]):
        start, end = words[first]["start"], words[last]["end"]
        score = sum(word["score"] for word in words[first : last + 1]) / (last + 1 - first)
        entities.append({"entity_group": entity_type, "score": score, "word": text[start:end], "start": start, "end": end})
    return entities
