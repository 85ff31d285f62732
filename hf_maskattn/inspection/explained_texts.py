"""Texts as a model reads them, with the tokens, words or spans that are explained."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_maskattn.data.tag_decoding import split_words
from hf_maskattn.data.tokenizers import is_unknown
from hf_maskattn.inspection.audit_forward import read_argument_names
from hf_maskattn.inspection.explanations import Unit

Span = tuple[int, int]


@dataclass(frozen=True)
class ExplainedText:
    """A tokenized text and its units: the tokens, words or spans that get a score.

    Attributes:
        text: The text.
        inputs: For each input of the model with a value per token, such as `input_ids`, the n values.
        tokens: The text of each unit.
        offsets: Start and end of each unit in the text.
        columns: The positions of the tokens of each unit among the n tokens; none for a span that was truncated away.
        all_unknown: Whether no token but special ones is in the vocabulary.
        token_offsets: Start and end of each of the n tokens in the text.
    """

    text: str
    inputs: dict[str, list[int]]
    tokens: list[str]
    offsets: list[Span]
    columns: list[list[int]]
    all_unknown: bool
    token_offsets: list[Span]

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])

    def sum_over_units(self, scores: torch.Tensor) -> torch.Tensor:
        """Add the scores of the tokens of each unit: `[n, columns]` -> `[units, columns]`."""
        if len(self.columns) == len(self):  # every unit is one token
            return scores
        owners = torch.tensor([unit for unit, columns in enumerate(self.columns) for _ in columns], dtype=torch.long)
        positions = torch.tensor([column for columns in self.columns for column in columns], dtype=torch.long)
        return scores.new_zeros(len(self.columns), scores.shape[1]).index_add(0, owners, scores[positions])

    def mask_without(self, removed: Sequence[Sequence[int]]) -> torch.Tensor:
        """Build a mask `[R, n]`, bool, without the tokens of some units for each of R rows."""
        mask = torch.ones(len(removed), len(self), dtype=torch.bool)
        for row, units in zip(mask, removed, strict=True):
            row[[column for unit in units for column in self.columns[unit]]] = False
        return mask


def encode_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    unit: Unit,
    spans: Sequence[Sequence[Span]] | None = None,
    with_special_tokens: bool = True,
    max_length: int | None = None,
) -> list[ExplainedText]:
    """Tokenize texts with a visible character by the fast tokenizer of a model, and find their units.

    Args:
        model: The model that reads them.
        tokenizer: Its tokenizer.
        texts: The texts.
        unit: What a unit is; a word or punctuation mark has the space before it.
        spans: Start and end of the units of each text, instead of `unit`.
        with_special_tokens: Whether each special token is a unit too. Spans have none.
        max_length: Number of tokens that texts are truncated to; None truncates nothing.
    """
    encoded = tokenizer(
        list(texts),
        truncation=max_length is not None,
        max_length=max_length,
        return_attention_mask=False,
        verbose=False,  # no warning about texts that are longer than those of the training
    )
    names, unk_token_id = read_argument_names(model) & set(encoded), tokenizer.unk_token_id
    rows = []
    for index, (text, encoding) in enumerate(zip(texts, encoded.encodings, strict=True)):
        ids, offsets, is_special = encoding.ids, encoding.offsets, encoding.special_tokens_mask
        if spans is None:
            units, columns = _group(text, offsets, is_special, unit)
            if not with_special_tokens:
                kept = [number for number, positions in enumerate(columns) if not is_special[positions[0]]]
                units, columns = [units[number] for number in kept], [columns[number] for number in kept]
        else:
            units, columns = [*spans[index]], [_overlapping(span, offsets, is_special) for span in spans[index]]
        rows.append(
            ExplainedText(
                text=text,
                inputs={name: encoded[name][index] for name in names},
                tokens=[
                    text[start:end] or tokenizer.convert_ids_to_tokens(ids[positions[0]])
                    for (start, end), positions in zip(units, columns, strict=True)
                ],
                offsets=units,
                columns=columns,
                all_unknown=is_unknown(ids, is_special, unk_token_id),
                token_offsets=offsets,
            )
        )
    return rows


def _group(text: str, offsets: Sequence[Span], is_special: Sequence[int], unit: Unit) -> tuple[list[Span], list[list[int]]]:
    """Group the tokens of a text to units; returns the offsets of each and the positions of its tokens."""
    if unit == "token":
        spans = [(0, 0) if special else span for span, special in zip(offsets, is_special, strict=True)]
        return spans, [[position] for position in range(len(offsets))]
    words = split_words(text)
    ends = [end for _, end in words]
    spans, columns = [], []
    previous = None
    for position, ((start, end), special) in enumerate(zip(offsets, is_special, strict=True)):
        word = None if special or not words else min(bisect_right(ends, start), len(words) - 1)
        if word is not None and word == previous:
            columns[-1].append(position)
        else:
            spans.append((0, 0) if special else (start, end) if word is None else words[word])
            columns.append([position])
        previous = word
    return spans, columns


def _overlapping(span: Span, offsets: Sequence[Span], is_special: Sequence[int]) -> list[int]:
    """Return the positions of the tokens that overlap a span."""
    return [
        position
        for position, ((start, end), special) in enumerate(zip(offsets, is_special, strict=True))
        if not special and start < span[1] and end > span[0]
    ]


def stack_texts(rows: Sequence[ExplainedText], device: torch.device) -> dict[str, torch.Tensor]:
    """Pad a batch of texts on the right; returns the inputs of the model with their `attention_mask`, each `[B, T]`."""
    values = {name: [row.inputs[name] for row in rows] for name in rows[0].inputs}
    values["attention_mask"] = [[1] * len(row) for row in rows]
    return {name: pad_rows(lists).to(device) for name, lists in values.items()}


def pad_rows(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Pad rows of integers with 0 on the right: `[B, T]`. Faster than `pad_sequence` over a tensor for each row."""
    length = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (length - len(row))] for row in rows], dtype=torch.long)
