"""Pruning of a tokenizer to the tokens that occur in some texts."""

import json
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hf_maskattn.tokenization import MaskAttnTokenizer

_BATCH_SIZE = 1000


def prune_vocabulary(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> MaskAttnTokenizer:
    """Remove the tokens of a tokenizer that do not occur in texts.

    Special and added tokens, tokens of a single character or byte, and what a token is merged from are kept, so that every text
    can still be encoded. The texts have the same tokens as before; ids are new, in the same order.

    Args:
        tokenizer: A tokenizer of the type WordPiece, BPE, Unigram or WordLevel.
        texts: The texts, which are held in memory.

    Returns:
        A new tokenizer.

    Raises:
        ValueError: If the tokenizer has no unknown token and may need one, is of another type, or would split a text
            differently.
    """
    texts = list(texts)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    _check_unknown_token(state)
    used = {used_id for batch in _batches(texts) for row in _encode(tokenizer, batch) for used_id in row}
    ids = tokenizer.get_vocab()
    kept = {token for token, old in ids.items() if old in used or _is_elementary(token, state["model"])}
    kept |= {token["content"] for token in state["added_tokens"]} | _tokens_of_model(state["model"], kept)
    new_ids = {token: new for new, token in enumerate(sorted(kept, key=ids.__getitem__))}
    pruned = MaskAttnTokenizer(
        tokenizer_object=Tokenizer.from_str(json.dumps(_rewrite(state, new_ids))),
        **tokenizer.special_tokens_map,
        model_max_length=tokenizer.model_max_length,
        model_input_names=["input_ids", "attention_mask"],
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        clean_up_tokenization_spaces=False,
    )
    to_new = {old: new_ids[token] for token, old in ids.items() if token in new_ids}
    for batch in _batches(texts):
        for text, before, after in zip(batch, _encode(tokenizer, batch), _encode(pruned, batch), strict=True):
            if [to_new[old] for old in before] != after:
                raise ValueError(
                    f"The tokenizer must split {text[:50]!r} as before without the tokens that do not occur in any text. Keep "
                    "all tokens: data.vocabulary=all."
                )
    return pruned


def _batches(texts: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), _BATCH_SIZE):
        yield texts[start : start + _BATCH_SIZE]


def _encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, verbose=False)["input_ids"]


def _check_unknown_token(state: dict[str, Any]) -> None:
    """Check that a tokenizer can encode characters that are not in its vocabulary."""
    model = state["model"]
    kind = model["type"]
    if kind in ("WordPiece", "WordLevel"):
        has_unknown = model["unk_token"] in model["vocab"]
    elif kind == "Unigram":
        has_unknown = model["unk_id"] is not None or model["byte_fallback"]
    elif kind == "BPE":
        is_byte_level = '"ByteLevel"' in json.dumps([state["normalizer"], state["pre_tokenizer"]])
        has_all_bytes = is_byte_level and set(pre_tokenizers.ByteLevel.alphabet()) <= model["vocab"].keys()
        has_unknown = model["unk_token"] in model["vocab"] or has_all_bytes or model["byte_fallback"]
    else:
        raise ValueError(f"The tokenizer must be of the type WordPiece, BPE, Unigram or WordLevel to be pruned, got {kind}.")
    if not has_unknown:
        raise ValueError(
            "The tokenizer must have an unknown token to be pruned, got none. Keep all tokens: data.vocabulary=all."
        )


def _is_elementary(token: str, model: dict[str, Any]) -> bool:
    """Return whether a token is a single character or byte, at the start of a word, in it or at its end."""
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    is_byte = bool(model.get("byte_fallback")) and len(token) == len("<0x00>") and token.startswith("<0x")
    return is_byte or len(token) == 1 or len(token.removeprefix(prefix).removesuffix(suffix)) == 1


def _tokens_of_model(model: dict[str, Any], kept: set[str]) -> set[str]:
    """Return the further tokens that the algorithm of a tokenizer needs to find the tokens that are kept."""
    if model["type"] == "BPE":
        ranks = {merge: rank for rank, merge in enumerate(_merges(model))}
        return {part for token in kept for part in _parts(token, ranks, model)}
    if model["type"] == "Unigram":
        # The score of an unknown character depends on the lowest score.
        return {min(model["vocab"], key=lambda piece: piece[1])[0]}
    return {model["unk_token"]}


def _merges(model: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for merge in model["merges"]:
        first, second = merge.split(" ") if isinstance(merge, str) else merge
        yield first, second


def _parts(token: str, ranks: dict[tuple[str, str], int], model: dict[str, Any]) -> set[str]:
    """Return the tokens that byte pair encoding merges a token from.

    Source:
        Sennrich et al. 2016, https://arxiv.org/abs/1508.07909: merge the adjacent pair of the lowest rank until there is none.
    """
    prefix, suffix = model["continuing_subword_prefix"] or "", model["end_of_word_suffix"] or ""
    has_suffix = bool(suffix) and token.endswith(suffix)
    is_continuing = bool(prefix) and token.startswith(prefix)
    characters = list(token.removeprefix(prefix).removesuffix(suffix))
    pieces = [prefix * (is_continuing or index > 0) + character for index, character in enumerate(characters)]
    if has_suffix and pieces:
        pieces[-1] += suffix
    parts = set(pieces)
    while len(pieces) > 1:
        rank, index = min((ranks.get(pair, len(ranks)), index) for index, pair in enumerate(pairwise(pieces)))
        if rank == len(ranks):
            break
        pieces[index : index + 2] = [pieces[index] + pieces[index + 1].removeprefix(prefix)]
        parts.add(pieces[index])
    return parts & model["vocab"].keys()


def _rewrite(state: dict[str, Any], ids: dict[str, int]) -> dict[str, Any]:
    """Return the state of a tokenizer with the tokens of `ids` alone."""
    model = dict(state["model"])
    if model["type"] == "Unigram":
        unknown = None if model["unk_id"] is None else model["vocab"][model["unk_id"]][0]
        model["vocab"] = [piece for piece in model["vocab"] if piece[0] in ids]
        model["unk_id"] = None if unknown is None else ids[unknown]
    else:
        model["vocab"] = {token: ids[token] for token in model["vocab"] if token in ids}
    if model["type"] == "BPE":
        prefix = model["continuing_subword_prefix"] or ""
        model["merges"] = [
            [first, second]
            for first, second in _merges(model)
            if first in ids and second in ids and first + second.removeprefix(prefix) in ids
        ]
    added = [{**token, "id": ids[token["content"]]} for token in state["added_tokens"]]
    processor = _rewrite_processor(state["post_processor"], ids)
    return {**state, "model": model, "added_tokens": added, "post_processor": processor, "padding": None, "truncation": None}


def _rewrite_processor(processor: dict[str, Any] | None, ids: dict[str, int]) -> dict[str, Any] | None:
    """Return a post-processor with new ids of its special tokens."""
    if processor is None:
        return None
    changed = dict(processor)
    for key in ("sep", "cls"):
        if key in processor:
            changed[key] = [processor[key][0], ids[processor[key][0]]]
    if "special_tokens" in processor:
        changed["special_tokens"] = {
            name: {**special, "ids": [ids[token] for token in special["tokens"]]}
            for name, special in processor["special_tokens"].items()
        }
    if "processors" in processor:
        changed["processors"] = [_rewrite_processor(part, ids) for part in processor["processors"]]
    return changed
