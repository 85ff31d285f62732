"""Ways to run a bidirectional recurrence over rows of different lengths, all with the same weights."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hf_maskattn.benchmark.lengths import right_padded_mask
from hf_maskattn.benchmark.ways import Results, Way
from hf_maskattn.model.recurrence import MaskedRecurrence

OURS, PACKED, PADDED, LIMIT = "ours", "packed", "padded, wrong with pads", "matrix products"

_MODULES = {"lstm": nn.LSTM, "gru": nn.GRU}
_GATES = {"lstm": 4, "gru": 3}
_ROWS_OF_THE_LIMIT = 4096
_DIRECTIONS = 2


class RecurrentBatch(NamedTuple):
    """One batch.

    Attributes:
        x: Inputs `[B, T, I]`.
        mask: `[B, T]`, bool, True = real, right-padded.
        lengths: `[B]`, int64, on the CPU, where packing reads them.
        gradient: What flows back into the states, `[B, T, H]`, 0 at pads.
    """

    x: torch.Tensor
    mask: torch.Tensor
    lengths: torch.Tensor
    gradient: torch.Tensor


def recurrent_ways(
    rnn_type: str, hidden_size: int, rows: Sequence[Sequence[int]], training: bool, device: torch.device
) -> list[Way]:
    """Prepare all ways over the same batches: ours, packed, plain padded, and the matrix products alone.

    Args:
        rnn_type: "lstm" or "gru".
        hidden_size: Width H of the states, both directions together; inputs have half of it.
        rows: Lengths of the rows of each batch; times are those of one batch, the mean of all.
        training: Whether a run is forward and backward, or forward without gradients.
        device: Where they run.
    """
    torch.manual_seed(0)
    width = hidden_size // _DIRECTIONS
    ours = MaskedRecurrence(input_size=width, hidden_size=hidden_size, rnn_type=rnn_type).to(device)
    torchs = _MODULES[rnn_type](width, width, batch_first=True, bidirectional=True).to(device)
    with torch.no_grad():
        # Both name the forward direction first, and its four parameters in the same order.
        for parameter, own in zip(torchs.parameters(), ours.parameters(), strict=True):
            parameter.copy_(own)
    batches = [_batch(lengths, width, device) for lengths in rows]
    run = _training_run if training else _inference_run
    functions: dict[str, tuple[nn.Module, Callable[[RecurrentBatch], torch.Tensor]]] = {
        OURS: (ours, lambda batch: ours(batch.x, batch.mask)[-1]),
        PACKED: (torchs, lambda batch: _packed(torchs, batch)),
        PADDED: (torchs, lambda batch: torchs(batch.x)[0]),
    }
    no_pads = all(min(lengths) == max(lengths) for lengths in rows)
    ways = [
        Way(name, run(module, states_of, batches), name != PADDED or no_pads, 1 / len(batches))
        for name, (module, states_of) in functions.items()
    ]
    return [*ways, _limit(rnn_type, width, sum(map(sum, rows)) / len(rows), training, device)]


def _batch(lengths: Sequence[int], width: int, device: torch.device) -> RecurrentBatch:
    mask = right_padded_mask(lengths)
    gradient = torch.randn(*mask.shape, _DIRECTIONS * width).masked_fill(~mask[..., None], 0)
    x = torch.randn(*mask.shape, width)
    return RecurrentBatch(x.to(device), mask.to(device), torch.tensor(lengths), gradient.to(device))


def _packed(module: nn.Module, batch: RecurrentBatch) -> torch.Tensor:
    packed = pack_padded_sequence(batch.x, batch.lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(module(packed)[0], batch_first=True)[0]


def _training_run(
    module: nn.Module, states_of: Callable[[RecurrentBatch], torch.Tensor], batches: Sequence[RecurrentBatch]
) -> Callable[[], Results]:
    def run() -> Results:
        module.zero_grad()
        results: dict[str, torch.Tensor | None] = {}
        for number, batch in enumerate(batches):
            batch.x.requires_grad_().grad = None
            states = states_of(batch)
            states.backward(batch.gradient)
            results |= {f"states {number}": states.detach(), f"gradient of input {number}": batch.x.grad}
        for number, parameter in enumerate(module.parameters()):
            results[f"gradient of weight {number}"] = parameter.grad
        return results

    return run


def _inference_run(
    module: nn.Module, states_of: Callable[[RecurrentBatch], torch.Tensor], batches: Sequence[RecurrentBatch]
) -> Callable[[], Results]:
    module.eval()

    @torch.inference_mode()
    def run() -> Results:
        return {f"states {number}": states_of(batch) for number, batch in enumerate(batches)}

    return run


def _limit(rnn_type: str, width: int, tokens: float, training: bool, device: torch.device) -> Way:
    """Multiply one large matrix of the same widths, and scale its time to the products that the real tokens need.

    A backward pass has two products for each one of the forward pass.
    """
    left = torch.randn(_ROWS_OF_THE_LIMIT, 2 * width, device=device)
    right = torch.randn(2 * width, _GATES[rnn_type] * width, device=device)

    @torch.inference_mode()
    def run() -> Results:
        return {"product": left @ right}

    products = _DIRECTIONS * (3 if training else 1)
    return Way(LIMIT, run, comparable=False, scale=products * tokens / _ROWS_OF_THE_LIMIT)
