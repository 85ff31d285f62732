"""The rows of tokens that a model is audited with, and the placements of their tokens in a padded batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

EXTRA_COLUMNS = 5
"""Number of columns that a check adds, more than the kernel size of common convolutions."""

SAMPLE_TEXTS = (
    "The longest row of a batch is never padded.",
    "A shorter row is padded to its length.",
    "Nobody should see it.",
    "Padding",
)
MAX_TEXTS = 8
_DECODER_LENGTH = 4
_SPECIAL_TOKENS = ("pad", "bos", "eos", "sep", "cls", "mask", "unk", "decoder_start")


@dataclass(frozen=True)
class Placement:
    """The columns of the tokens of each row in a padded batch.

    Attributes:
        columns: Column of each token, `[n]`, in increasing order, for each row.
        width: Number of columns.
    """

    columns: tuple[torch.Tensor, ...]
    width: int

    @property
    def mask(self) -> torch.Tensor:
        """`[B, width]`, bool, True = token."""
        mask = torch.zeros(len(self.columns), self.width, dtype=torch.bool)
        for row, columns in zip(mask, self.columns, strict=True):
            row[columns] = True
        return mask

    def fill(self, values: Sequence[torch.Tensor], background: torch.Tensor) -> torch.Tensor:
        """Write the values of the tokens of each row, `[n]`, into a copy of `background`, `[B, width]`."""
        filled = background.clone()
        for row, columns, row_values in zip(filled, self.columns, values, strict=True):
            row[columns] = row_values.to(row.dtype)
        return filled


def pad_right(lengths: Sequence[int], extra: int = 0) -> Placement:
    """Place padding after the tokens, with `extra` columns after the longest row."""
    return Placement(tuple(torch.arange(length) for length in lengths), max(lengths) + extra)


def pad_left(lengths: Sequence[int], extra: int = 0) -> Placement:
    """Place padding before the tokens, with `extra` columns before the longest row."""
    width = max(lengths) + extra
    return Placement(tuple(torch.arange(width - length, width) for length in lengths), width)


def pad_between(lengths: Sequence[int]) -> Placement:
    """Spread the tokens of each row evenly over the columns, with padding between and after them."""
    width = max(lengths) + EXTRA_COLUMNS
    last_column = width - 3  # two columns of padding after the last token
    return Placement(tuple(torch.arange(n) * last_column // max(n - 1, 1) for n in lengths), width)


@dataclass(frozen=True)
class TokenRows:
    """Rows of tokens without padding.

    Attributes:
        token_inputs: For each input with a value per token, such as `input_ids`, the values of each row, `[n]`.
        row_inputs: Inputs `[B, ...]` that are passed to the model unchanged, such as `decoder_input_ids`.
        pad_id: Token id that collators pad with.
        ordinary_ids: `[N]`, ids of tokens that are not special, from which random ids are drawn.
        description: Origin and lengths of the rows.
    """

    token_inputs: Mapping[str, tuple[torch.Tensor, ...]]
    row_inputs: Mapping[str, torch.Tensor]
    pad_id: int
    ordinary_ids: torch.Tensor
    description: str

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each row."""
        return [len(row) for row in self.token_inputs["input_ids"]]

    def select(self, rows: Sequence[int]) -> "TokenRows":
        """Select rows by index, in the given order."""
        token_inputs = {name: tuple(values[row] for row in rows) for name, values in self.token_inputs.items()}
        row_inputs = {name: value[[*rows]] for name, value in self.row_inputs.items()}
        return replace(self, token_inputs=token_inputs, row_inputs=row_inputs)

    def append_empty_row(self) -> "TokenRows":
        """Append a row without tokens, with the row inputs of the first row."""
        rows = self.select([*range(len(self.lengths)), 0])
        token_inputs = {name: (*values[:-1], values[-1][:0]) for name, values in rows.token_inputs.items()}
        return replace(rows, token_inputs=token_inputs)

    def extend_longest(self, count: int) -> "TokenRows":
        """Select the longest row alone and append its first token `count` times."""
        rows = self.select([self.lengths.index(max(self.lengths))])
        token_inputs = {name: (torch.cat([value, value[:1].expand(count)]),) for name, (value,) in rows.token_inputs.items()}
        return replace(rows, token_inputs=token_inputs)

    def replace_last_tokens(self) -> "TokenRows":
        """Replace the last token of each row with a different one."""
        ids = [row.clone() for row in self.token_inputs["input_ids"]]
        for row in ids:
            row[-1] = self.ordinary_ids[self.ordinary_ids != row[-1]][0]
        return replace(self, token_inputs={**self.token_inputs, "input_ids": tuple(ids)})


def build_rows(
    model: PreTrainedModel,
    input_names: frozenset[str],
    tokenizer: PreTrainedTokenizerBase | None,
    batch: Sequence[str] | Mapping[str, torch.Tensor] | None,
    max_length: int,
    seed: int,
) -> TokenRows:
    """Build rows of tokens for a model.

    Args:
        model: Any text model.
        input_names: Names of the arguments of its forward.
        tokenizer: Its tokenizer; without one, and without a batch of tensors, token ids are random.
        batch: Texts, or a padded batch of tensors; None selects a few English sentences.
        max_length: Largest number of tokens of a row; reduced to the number of positions of the model.
        seed: Seed of random token ids.

    Raises:
        ValueError: If texts come without a tokenizer, there are no tokens, or `max_length` is not positive.
    """
    generator = torch.Generator().manual_seed(seed)
    length = _limit_length(model, max_length)
    config = model.config.get_text_config()
    vocab_size = getattr(config, "vocab_size", None)
    if vocab_size is None:
        raise ValueError(f"The configuration of the model must have a `vocab_size`, got {type(config).__name__}.")
    pad_id, ordinary_ids = _select_ids(model, tokenizer, vocab_size)
    row_inputs: dict[str, torch.Tensor] = {}
    if isinstance(batch, (Mapping, BatchEncoding)):
        token_inputs, row_inputs = _split_batch(batch, length)
        origin = "given batch"
    elif tokenizer is not None:
        token_inputs = _tokenize(tokenizer, SAMPLE_TEXTS if batch is None else batch, input_names, length)
        origin = "texts"
    elif batch is None:
        eos_id = getattr(config, "eos_token_id", None)
        has_eos = isinstance(eos_id, int) and 0 <= eos_id < vocab_size
        token_inputs = {"input_ids": _draw_rows(ordinary_ids, length, eos_id if has_eos else None, generator)}
        origin = "random ids"
    else:
        raise ValueError(
            "`tokenizer` must be given if `batch` is texts, got None. Pass it, or the folder or name of a model that has one."
        )
    lengths = [len(row) for row in token_inputs["input_ids"]]
    count = len(lengths)
    # Classifiers with an encoder and a decoder derive `decoder_input_ids` from `input_ids`.
    needs_decoder_ids = not type(model).__name__.endswith("ForSequenceClassification")
    if needs_decoder_ids and "decoder_input_ids" in input_names and "decoder_input_ids" not in row_inputs:
        row_inputs["decoder_input_ids"] = _draw_ids(ordinary_ids, (count, _DECODER_LENGTH), generator)
    description = f"{origin}, {count} row{'s' * (count > 1)} of {min(lengths)} to {max(lengths)} tokens"
    return TokenRows(token_inputs, row_inputs, pad_id, ordinary_ids, description)


def _select_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, vocab_size: int) -> tuple[int, torch.Tensor]:
    """Select the id to pad with, and the ids of tokens that are not special."""
    pad_ids = [*_get_special_ids(tokenizer, ["pad"]), *_get_special_ids(model.config, ["pad"])]
    pad_id = next((id_ for id_ in pad_ids if 0 <= id_ < vocab_size), 0)
    special_ids = {pad_id, *_get_special_ids(tokenizer, _SPECIAL_TOKENS), *_get_special_ids(model.config, _SPECIAL_TOKENS)}
    ordinary_ids = [id_ for id_ in range(vocab_size) if id_ not in special_ids]
    return pad_id, torch.tensor(ordinary_ids or [*range(vocab_size)])


def _draw_ids(ordinary_ids: torch.Tensor, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return ordinary_ids[torch.randint(len(ordinary_ids), shape, generator=generator)]


def _draw_rows(
    ordinary_ids: torch.Tensor, length: int, eos_id: int | None, generator: torch.Generator
) -> tuple[torch.Tensor, ...]:
    """Draw four rows of decreasing lengths, each with the end-of-sequence token that some heads read the state of."""
    rows = [_draw_ids(ordinary_ids, (n,), generator) for n in (length, -(-2 * length // 3), -(-length // 3), 1)]
    if eos_id is not None:
        for row in rows:
            row[-1] = eos_id
    return tuple(rows)


def _limit_length(model: PreTrainedModel, max_length: int) -> int:
    if max_length < 1:
        raise ValueError(f"`max_length` must be at least 1, got {max_length}.")
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not positions or positions < 0:
        return max_length
    # Two positions are reserved: RoBERTa and its relatives count from pad_token_id + 1.
    limit = positions - EXTRA_COLUMNS - 2
    if limit < 1:
        raise ValueError(
            f"`max_position_embeddings` of the model must be at least {EXTRA_COLUMNS + 3} for an audit, got {positions}."
        )
    return min(max_length, limit)


def _tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], input_names: frozenset[str], length: int
) -> dict[str, tuple[torch.Tensor, ...]]:
    texts = [text for text in texts if text.strip()][:MAX_TEXTS]
    encoded = [tokenizer(text, truncation=True, max_length=length) for text in texts]
    encoded = [row for row in encoded if row["input_ids"]]
    if not encoded:
        raise ValueError("The texts must have at least one token, got none. Pass a text that the tokenizer can encode.")
    names = [name for name in encoded[0] if name == "input_ids" or (name in input_names and name != "attention_mask")]
    return {name: tuple(torch.tensor(row[name]) for row in encoded) for name in names}


def _split_batch(
    batch: Mapping[str, torch.Tensor] | BatchEncoding, length: int
) -> tuple[dict[str, tuple[torch.Tensor, ...]], dict[str, torch.Tensor]]:
    """Split a padded batch into inputs with a value per token, without padding, and inputs of whole rows."""
    tensors = {name: value.cpu() for name, value in batch.items() if name != "labels"}
    if "input_ids" not in tensors:
        raise ValueError(f"`batch` must have `input_ids`, got {', '.join(tensors) or 'nothing'}.")
    ids = tensors["input_ids"]
    mask = tensors.pop("attention_mask", torch.ones_like(ids)).bool()
    rows = mask.any(dim=1).nonzero()[:, 0].tolist()
    if not rows:
        raise ValueError("`batch` must have at least one token, got an attention_mask of zeros.")
    token_inputs, row_inputs = {}, {}
    for name, value in tensors.items():
        if value.shape == ids.shape and not name.startswith("decoder_"):
            token_inputs[name] = tuple(value[row][mask[row]][:length] for row in rows)
        else:
            row_inputs[name] = value[rows]
    return token_inputs, row_inputs


def _get_special_ids(source: object, names: Sequence[str]) -> list[int]:
    values = [getattr(source, f"{name}_token_id", None) for name in names]
    return [id_ for value in values for id_ in (value if isinstance(value, list) else [value]) if id_ is not None]
