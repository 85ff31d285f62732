"""What a decoder carries from one step to the next: passed as an argument, returned anew, never kept on a module."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from transformers.modeling_outputs import Seq2SeqModelOutput

from .masking import RealColumns
from .tensor_checks import host_can_read

STATE = "cache" if "cache" in {field.name for field in fields(Seq2SeqModelOutput)} else "past_key_values"
"""What this version of transformers calls the state that `generate()` passes on."""


class Memory(NamedTuple):
    """What the decoder attends to, prepared once for any number of steps.

    Attributes:
        keys: The projected annotations of S sources, `[S, Tk, A]`; under "ragged" the flat list of the real ones, `[N, A]`.
        values: The annotations, `[S, Tk, H]` or `[N, H]`.
        mask: `[S, Tk]`, bool, True = real.
        columns: The Tk columns of the source that these are.
    """

    keys: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor
    columns: RealColumns

    def padded_values(self) -> torch.Tensor:
        """Lay the annotations out as `[S, Tk, H]`, finite at pads, under any implementation of attention."""
        if self.values.dim() == 3:
            return self.values
        return self.values.new_zeros(*self.mask.shape, self.values.shape[1]).index_put(
            self.mask.nonzero(as_tuple=True), self.values
        )

    def take_rows(self, rows: torch.Tensor) -> "Memory":
        """Take some rows, in any order, any of them more than once: int64 `[R]`."""
        mask = self.mask.index_select(0, rows)
        if self.keys.dim() == 3:
            return Memory(self.keys.index_select(0, rows), self.values.index_select(0, rows), mask, self.columns)
        places = torch.zeros_like(self.mask, dtype=torch.long)
        places[self.mask] = torch.arange(len(self.keys), device=rows.device)
        real = places.index_select(0, rows)[mask]
        return Memory(self.keys.index_select(0, real), self.values.index_select(0, real), mask, self.columns)


def count_rows_per_source(memory: torch.Tensor, mask: torch.Tensor) -> int:
    """Count the rows, one after the other, that have the same source, as `generate()` repeats each for its beams or samples.

    Args:
        memory: `[B, Tk, H]`.
        mask: `[B, Tk]`, bool.

    Returns:
        n, where each of B / n sources is the memory of n rows, bit for bit. 1 where there is no such n, where a gradient may be
        asked for, and where the host does not know the memory without a sync.
    """
    if torch.is_grad_enabled() or not host_can_read(memory):
        return 1
    rows = next((row for row in range(1, len(memory)) if not torch.equal(memory[row], memory[0])), len(memory))
    if rows < 2 or len(memory) % rows:
        return 1
    sources = (x.unflatten(0, (len(x) // rows, rows)) for x in (memory, mask))
    return rows if all(bool((x == x[:, :1]).all()) for x in sources) else 1


@dataclass
class DecodingState:
    """The state of a recurrent decoder after some target tokens, of which `generate()` passes one from step to step.

    A forward pass leaves the state that it is given as it is and returns another one, so that any number of continuations may
    start from one state. Its size does not grow with the target.

    Attributes:
        layers: The state of each layer, `[B, H]`; of an LSTM also its cell.
        context: What the attention read last, `[B, memory width]`; None without input feeding.
        memory: What the decoder attends to: a source for each row, or one for so many rows, one after the other.
        seen_tokens: Number of target tokens that were read, padded ones included.
    """

    layers: tuple[tuple[torch.Tensor, ...], ...]
    context: torch.Tensor | None
    memory: Memory
    seen_tokens: int = 0

    # What `generate()` asks any cache: whether its size is fixed for a compiler, and whether it can forget tokens.
    is_compileable = False
    is_croppable = False
    is_linear = (False,)

    @property
    def batch_size(self) -> int:
        """Number of rows B."""
        return len(self.layers[0][0])

    @property
    def rows_per_source(self) -> int:
        """Number of rows, one after the other, that attend to the same source: beams, or samples."""
        return self.batch_size // len(self.memory.mask) if self.batch_size else 1

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tell how many target tokens were read, as any cache of transformers does."""
        return self.seen_tokens

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Put rows in another order, in place: the beams that a search goes on with.

        Beams trade places within their own source alone, so that the memory stays where it is.

        Args:
            beam_idx: `[B]`, int, the row that each row goes on from.
        """
        beam_idx = beam_idx.to(self.memory.mask.device)
        self._replace_tensors(lambda tensor: tensor.index_select(0, beam_idx))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows, in place, with their sources: `[R]`, int."""
        indices = indices.to(self.memory.mask.device)
        self.memory = self.memory.take_rows(indices // self.rows_per_source)
        self._replace_tensors(lambda tensor: tensor.index_select(0, indices))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row, in place, for so many beams or samples of each; they share its source."""
        if repeats == 0:
            self.memory = self.memory.take_rows(torch.tensor([], dtype=torch.long, device=self.memory.mask.device))
        self._replace_tensors(lambda tensor: tensor.repeat_interleave(repeats, dim=0))

    def _replace_tensors(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.layers = tuple(tuple(function(tensor) for tensor in layer) for layer in self.layers)
        if self.context is not None:
            self.context = function(self.context)
