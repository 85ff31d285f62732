"""The rows of an audit: real tokens only, before anything is padded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

EXTRA_PADS = 5
"""Columns that a check adds: more than the reach of the usual short convolutions."""
_PADS_BEHIND = 2


@dataclass(frozen=True)
class Placement:
    """A way of padding rows.

    Attributes:
        columns: For each row, `[n]`, the column of each of its tokens, ascending.
        width: Number of columns.
    """

    columns: tuple[torch.Tensor, ...]
    width: int

    @property
    def mask(self) -> torch.Tensor:
        """`[B, width]`, bool, True where a token is real."""
        mask = torch.zeros(len(self.columns), self.width, dtype=torch.bool)
        for row, columns in zip(mask, self.columns, strict=True):
            row[columns] = True
        return mask

    def fill(self, values: Sequence[torch.Tensor], padding: torch.Tensor) -> torch.Tensor:
        """Lay out the values of each row's tokens over `padding`, `[B, width]`."""
        laid_out = padding.clone()
        for row, columns, row_values in zip(laid_out, self.columns, values, strict=True):
            row[columns] = row_values.to(row.dtype)
        return laid_out


def padded_right(lengths: Sequence[int], extra: int = 0) -> Placement:
    """Put pads behind the tokens of each row, `extra` of them behind those of the longest."""
    return Placement(tuple(torch.arange(length) for length in lengths), max(lengths) + extra)


def padded_left(lengths: Sequence[int], extra: int = 0) -> Placement:
    """Put pads before the tokens of each row, `extra` of them before those of the longest."""
    width = max(lengths) + extra
    return Placement(tuple(torch.arange(width - length, width) for length in lengths), width)


def scattered(lengths: Sequence[int]) -> Placement:
    """Spread the tokens of each row evenly from the first column on, with pads between and behind them."""
    width = max(lengths) + EXTRA_PADS
    last = width - 1 - _PADS_BEHIND
    return Placement(tuple(torch.arange(n) * last // max(n - 1, 1) for n in lengths), width)


SAMPLE_TEXTS = (
    "The longest row of a batch is never padded.",
    "A shorter row is padded to its length.",
    "Nobody should see it.",
    "Padding",
)
MOST_TEXTS = 8
_DECODER_LENGTH = 4
_SPECIAL = ("pad", "bos", "eos", "sep", "cls", "mask", "unk", "decoder_start")


@dataclass(frozen=True)
class TokenRows:
    """Rows of real tokens.

    Attributes:
        by_token: For each input that has a value for every token, such as `input_ids`, the values of each row, `[n]`.
        by_row: Inputs `[B, ...]` that are handed to the model as they are, such as `decoder_input_ids`.
        pad_id: What collators write into pads.
        ordinary_ids: `[N]`, ids without a special meaning, from which junk is drawn.
        description: Where the rows come from, in words.
    """

    by_token: Mapping[str, tuple[torch.Tensor, ...]]
    by_row: Mapping[str, torch.Tensor]
    pad_id: int
    ordinary_ids: torch.Tensor
    description: str

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each row."""
        return [len(row) for row in self.by_token["input_ids"]]

    def select(self, rows: Sequence[int]) -> "TokenRows":
        """Take some rows, in the given order."""
        by_token = {name: tuple(values[row] for row in rows) for name, values in self.by_token.items()}
        return replace(self, by_token=by_token, by_row={name: value[[*rows]] for name, value in self.by_row.items()})

    def with_empty_row(self) -> "TokenRows":
        """Add a row without a token; what it has besides tokens is that of the first."""
        rows = self.select([*range(len(self.lengths)), 0])
        return replace(rows, by_token={name: (*values[:-1], values[-1][:0]) for name, values in rows.by_token.items()})

    def longest_grown(self, count: int) -> "TokenRows":
        """Take the longest row alone, with its first token `count` times more at its end."""
        rows = self.select([self.lengths.index(max(self.lengths))])
        by_token = {name: (torch.cat([value, value[:1].expand(count)]),) for name, (value,) in rows.by_token.items()}
        return replace(rows, by_token=by_token)

    def with_other_last_tokens(self) -> "TokenRows":
        """Replace the last token of every row by another."""
        ids = [row.clone() for row in self.by_token["input_ids"]]
        for row in ids:
            row[-1] = self.ordinary_ids[self.ordinary_ids != row[-1]][0]
        return replace(self, by_token={**self.by_token, "input_ids": tuple(ids)})


def rows_for(
    model: PreTrainedModel,
    takes: frozenset[str],
    tokenizer: PreTrainedTokenizerBase | None,
    batch: Sequence[str] | Mapping[str, torch.Tensor] | None,
    max_length: int,
    seed: int,
) -> TokenRows:
    """Find rows that a model can read.

    Args:
        model: Any text model.
        takes: Names of the inputs that its forward names.
        tokenizer: Its tokenizer; None leaves random ids, unless there is a batch of tensors.
        batch: Texts, or a padded batch of tensors; None takes a few sentences.
        max_length: Most tokens of a row; cut to what the model has positions for.
        seed: Of the random ids.

    Returns:
        The rows.

    Raises:
        ValueError: If texts come without a tokenizer, or there is no token, or `max_length` is not positive.
    """
    generator = torch.Generator().manual_seed(seed)
    length = _length_limit(model, max_length)
    vocabulary = getattr(model.config.get_text_config(), "vocab_size", None)
    if vocabulary is None:
        raise ValueError("the configuration of the model has no vocab_size: there is nothing to draw ids from.")
    if isinstance(batch, (Mapping, BatchEncoding)):
        by_token, by_row = _split(batch, length)
        origin = "given batch"
    elif tokenizer is not None:
        by_token, by_row = _tokenized(tokenizer, SAMPLE_TEXTS if batch is None else batch, takes, length), {}
        origin = "texts"
    elif batch is None:
        by_token, by_row = {}, {}
        origin = "random ids"
    else:
        raise ValueError("texts need the tokenizer of the model: pass it, or a folder or name that has one.")
    special = {value for source in (model.config, tokenizer) for value in _special_ids(source)}
    pad_id = next((id_ for id_ in (*_pad_ids(tokenizer), *_pad_ids(model.config)) if 0 <= id_ < vocabulary), 0)
    ordinary = [id_ for id_ in range(vocabulary) if id_ not in special and id_ != pad_id] or [*range(vocabulary)]
    ordinary_ids = torch.tensor(ordinary)

    def draw(*shape: int) -> torch.Tensor:
        return ordinary_ids[torch.randint(len(ordinary_ids), shape, generator=generator)]

    if not by_token:
        ids = [draw(n) for n in (length, -(-2 * length // 3), -(-length // 3), 1)]
        eos_id = getattr(model.config.get_text_config(), "eos_token_id", None)
        if isinstance(eos_id, int) and 0 <= eos_id < vocabulary:
            # Some heads read the state at the end-of-sequence token.
            ids = [torch.cat([row[:-1], torch.tensor([eos_id])]) for row in ids]
        by_token = {"input_ids": tuple(ids)}
    count = len(by_token["input_ids"])
    # A classifier over an encoder-decoder makes its decoder ids from the input ids.
    if "decoder_input_ids" in takes - by_row.keys() and not type(model).__name__.endswith("ForSequenceClassification"):
        by_row = {**by_row, "decoder_input_ids": draw(count, _DECODER_LENGTH)}
    lengths = [len(row) for row in by_token["input_ids"]]
    description = f"{origin}, {count} row{'s' * (count > 1)} of {min(lengths)} to {max(lengths)} tokens"
    return TokenRows(by_token, by_row, pad_id, ordinary_ids, description)


def _length_limit(model: PreTrainedModel, max_length: int) -> int:
    if max_length < 1:
        raise ValueError(f"max_length={max_length} must be at least 1.")
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not positions or positions < 0:
        return max_length
    # Two positions fewer than there are: RoBERTa and its kin count from pad_token_id + 1.
    room = positions - EXTRA_PADS - 2
    if room < 1:
        raise ValueError(f"the model has {positions} positions, an audit needs {EXTRA_PADS + 3} to have room for pads.")
    return min(max_length, room)


def _tokenized(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], takes: frozenset[str], length: int
) -> dict[str, tuple[torch.Tensor, ...]]:
    filled = [text for text in texts if text.strip()][:MOST_TEXTS]
    encoded = [tokenizer(text, truncation=True, max_length=length) for text in filled]
    encoded = [row for row in encoded if row["input_ids"]]
    if not encoded:
        raise ValueError("there is no token in the texts: give a text with a visible character that the tokenizer knows.")
    names = [name for name in encoded[0] if name == "input_ids" or (name in takes and name != "attention_mask")]
    return {name: tuple(torch.tensor(row[name]) for row in encoded) for name in names}


def _split(
    batch: Mapping[str, torch.Tensor] | BatchEncoding, length: int
) -> tuple[dict[str, tuple[torch.Tensor, ...]], dict[str, torch.Tensor]]:
    """Take a padded batch apart: the values of real tokens by row, and what belongs to a row as a whole."""
    tensors = {name: value.cpu() for name, value in batch.items() if name != "labels"}
    if "input_ids" not in tensors:
        raise ValueError(f"the batch has {', '.join(tensors) or 'nothing'}, but no input_ids: pass what the tokenizer gives.")
    ids = tensors["input_ids"]
    mask = tensors.pop("attention_mask", torch.ones_like(ids)).bool()
    rows = mask.any(dim=1).nonzero()[:, 0].tolist()
    if not rows:
        raise ValueError("the batch has no real token: pass one with a 1 in its attention_mask.")
    of_tokens = [name for name, value in tensors.items() if value.shape == ids.shape and not name.startswith("decoder_")]
    by_token = {name: tuple(tensors[name][row][mask[row]][:length] for row in rows) for name in of_tokens}
    return by_token, {name: value[rows] for name, value in tensors.items() if name not in of_tokens}


def _special_ids(source: object) -> list[int]:
    values = [getattr(source, f"{name}_token_id", None) for name in _SPECIAL]
    return [id_ for value in values for id_ in (value if isinstance(value, list) else [value]) if id_ is not None]


def _pad_ids(source: object) -> list[int]:
    pad_id = getattr(source, "pad_token_id", None)
    return [] if pad_id is None else [pad_id]
