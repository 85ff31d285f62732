"""Texts as a model reads them, with the tokens, words or spans that are explained."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from tokenizers.pre_tokenizers import Split
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_maskattn.data.tokenizers import WORDS_AND_PUNCTUATION, is_unknown
from hf_maskattn.inspection.audit_forward import read_signature
from hf_maskattn.inspection.explanations import Unit

Span = tuple[int, int]

_CHARACTERS_PER_BATCH = 2**17


@dataclass(frozen=True)
class ExplainedText:
    """A tokenized text and its units: the tokens, words or spans that get a score.

    Attributes:
        text: The text.
        inputs: For each input of the model with a value per token, such as `input_ids`, the values `[n]`.
        tokens: The text of each unit.
        offsets: Start and end of each unit in the text.
        columns: The positions of the tokens of each unit among the n tokens.
        all_unknown: Whether no token but special ones is in the vocabulary.
        token_offsets: Start and end of each of the n tokens in the text.
    """

    text: str
    inputs: dict[str, torch.Tensor]
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
    """Tokenize texts and find their units.

    Args:
        model: The model that reads them.
        tokenizer: Its fast tokenizer.
        texts: Texts with a visible character.
        unit: What a unit is; a word or punctuation mark has the space before it.
        spans: Start and end of the units of each text, instead of `unit`.
        with_special_tokens: Whether each special token is a unit.
        max_length: Number of tokens that texts are truncated to; None truncates nothing.
    """
    encoded = tokenizer(
        list(texts),
        truncation=max_length is not None,
        max_length=max_length,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        return_attention_mask=False,
        verbose=False,  # no warning about texts that are longer than those of the training
    )
    names = read_signature(model).names & set(encoded)
    rows = []
    for index, text in enumerate(texts):
        ids, offsets = encoded["input_ids"][index], [*map(tuple, encoded["offset_mapping"][index])]
        is_special = [bool(value) for value in encoded["special_tokens_mask"][index]]
        if spans is not None:
            units = [(span, _overlapping(span, offsets, is_special)) for span in spans[index]]
        else:
            units = _group(text, offsets, is_special, unit)
        names_of_tokens = tokenizer.convert_ids_to_tokens(ids)
        if not with_special_tokens:
            units = [(span, columns) for span, columns in units if not is_special[columns[0]]]
        rows.append(
            ExplainedText(
                text=text,
                inputs={name: torch.tensor(encoded[name][index]) for name in names},
                tokens=[text[start:end] or names_of_tokens[columns[0]] for (start, end), columns in units],
                offsets=[span for span, _ in units],
                columns=[columns for _, columns in units],
                all_unknown=is_unknown(ids, is_special, tokenizer.unk_token_id),
                token_offsets=offsets,
            )
        )
    return rows


def _group(text: str, offsets: Sequence[Span], is_special: Sequence[bool], unit: Unit) -> list[tuple[Span, list[int]]]:
    """Group the tokens of a text to units; returns the offsets and the token positions of each."""
    if unit == "token":
        return [
            ((0, 0) if special else span, [position])
            for position, (span, special) in enumerate(zip(offsets, is_special, strict=True))
        ]
    words = [span for _, span in Split(WORDS_AND_PUNCTUATION, "removed", invert=True).pre_tokenize_str(text)]
    ends = [end for _, end in words]
    units: list[tuple[Span, list[int]]] = []
    previous = None
    for position, ((start, end), special) in enumerate(zip(offsets, is_special, strict=True)):
        if special or not words:
            units.append(((0, 0) if special else (start, end), [position]))
            previous = None
            continue
        word = min(bisect_right(ends, start), len(words) - 1)
        if word == previous:
            units[-1][1].append(position)
        else:
            units.append((words[word], [position]))
        previous = word
    return units


def _overlapping(span: Span, offsets: Sequence[Span], is_special: Sequence[bool]) -> list[int]:
    """Return the positions of the tokens that overlap a span."""
    return [
        position
        for position, ((start, end), special) in enumerate(zip(offsets, is_special, strict=True))
        if not special and start < span[1] and end > span[0]
    ]


def stack_texts(rows: Sequence[ExplainedText], device: torch.device) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Pad a batch of texts on the right; returns the inputs with their `attention_mask`, and the mask `[B, T]`, bool."""
    inputs = {name: pad_sequence([row.inputs[name] for row in rows], batch_first=True).to(device) for name in rows[0].inputs}
    lengths = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).to(device)
    return {**inputs, "attention_mask": mask.long()}, mask


def batch_by_length(texts: Sequence[str], batch_size: int) -> Iterator[list[int]]:
    """Yield the indices of batches of the texts with a visible character, longest first, smaller where texts are long."""
    order = sorted((index for index, text in enumerate(texts) if text.strip()), key=lambda index: -len(texts[index]))
    start = 0
    while start < len(order):
        size = max(1, min(batch_size, _CHARACTERS_PER_BATCH // len(texts[order[start]])))
        yield order[start : start + size]
        start += size
