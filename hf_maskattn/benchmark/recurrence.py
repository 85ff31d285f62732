"""Tables of the masked recurrence: against packed and padded torch modules, and against the matrix products alone."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hf_maskattn.benchmark.baselines import copy_weights
from hf_maskattn.benchmark.batches import build_right_padded_mask, draw_grouped_batches, draw_lengths, draw_random_batches
from hf_maskattn.benchmark.measurement import Implementation, Results, Setting, compare_times, limit_threads
from hf_maskattn.benchmark.report import Ratio, Row, Table
from hf_maskattn.model.recurrence import MaskedRecurrence

OURS, PACKED, PADDED, PRODUCTS = "ours", "packed", "padded, ignores the mask", "matrix products"

CORPUS_BATCH_SIZE = 64
CORPUS_HIDDEN_SIZE = 384

_MODULES = {"lstm": nn.LSTM, "gru": nn.GRU}
_NUM_GATES = {"lstm": 4, "gru": 3}
_PRODUCT_ROWS = 4096
_NUM_DIRECTIONS = 2


class Shape(NamedTuple):
    """Size of a batch; `hidden` counts both directions, and the input is half as wide."""

    batch: int
    time: int
    hidden: int
    distribution: str

    def __str__(self) -> str:
        single_thread = ", 1 thread" if self.batch == 1 else ""
        return f"{self.batch} x {self.time}, {self.hidden}, {self.distribution}{single_thread}"


QUICK_SHAPES = (
    Shape(1, 16, 128, "equal"),
    Shape(32, 20, 128, "log-normal"),
    Shape(32, 128, 256, "uniform"),
)
FULL_SHAPES = (
    Shape(1, 16, 128, "equal"),
    Shape(32, 20, 128, "log-normal"),
    Shape(64, 32, 128, "uniform"),
    Shape(32, 128, 256, "uniform"),
    Shape(32, 128, 256, "equal"),
    Shape(64, 256, 128, "log-normal"),
    Shape(16, 400, 256, "uniform"),
    Shape(16, 1024, 512, "uniform"),
)
RATIOS = (
    Ratio("times faster than packed", PACKED, OURS),
    Ratio("times faster than padded", PADDED, OURS),
    Ratio("times the matrix products", OURS, PRODUCTS),
)


def plan_recurrence(setting: Setting) -> list[Table]:
    """Plan four tables: LSTM and GRU, training and inference."""
    cases = {
        str(shape): (shape.hidden, [draw_lengths(shape.distribution, shape.batch, shape.time)])
        for shape in (QUICK_SHAPES if setting.quick else FULL_SHAPES)
    }
    batches = {"random": draw_random_batches(setting.lengths, CORPUS_BATCH_SIZE, 4)}
    if not setting.quick:
        batches["grouped"] = draw_grouped_batches(setting.lengths, CORPUS_BATCH_SIZE, 8)
    for name, rows in batches.items():
        cases[f"{CORPUS_BATCH_SIZE} cldr names, {CORPUS_HIDDEN_SIZE}, {name}"] = (CORPUS_HIDDEN_SIZE, rows)
    return [
        Table(
            title=f"{rnn_type.upper()}, {'training' if training else 'inference'}",
            caption=(
                f"{'Forward and backward' if training else 'Forward'} of one bidirectional layer. Case: rows x columns, width "
                "of the states, lengths; a single row runs on one thread. Matrix products: those of the non-padding tokens "
                "alone, at the speed of one large product."
            ),
            cases={
                case: partial(_measure, rnn_type, hidden, rows, training, setting) for case, (hidden, rows) in cases.items()
            },
            ratios=RATIOS,
        )
        for rnn_type in ("lstm", "gru")
        for training in (True, False)
    ]


def _measure(rnn_type: str, hidden: int, rows: Sequence[Sequence[int]], training: bool, setting: Setting) -> Row:
    single_row = all(len(lengths) == 1 for lengths in rows)
    with limit_threads(1 if single_row else None):
        implementations = build_recurrences(rnn_type, hidden, rows, training, setting.device)
        return compare_times(implementations, setting.seconds, setting.device)


class RecurrentBatch(NamedTuple):
    """One batch.

    Attributes:
        x: Inputs `[B, T, I]`.
        mask: `[B, T]`, bool, True = token, right-padded.
        lengths: `[B]`, int64, on the CPU as `pack_padded_sequence` requires.
        grad_states: Gradient of the states `[B, T, H]`, 0 at padding.
    """

    x: torch.Tensor
    mask: torch.Tensor
    lengths: torch.Tensor
    grad_states: torch.Tensor


def build_recurrences(
    rnn_type: str, hidden_size: int, rows: Sequence[Sequence[int]], training: bool, device: torch.device
) -> list[Implementation]:
    """Build all implementations with the same weights: ours, torch packed and padded, and the matrix products alone.

    Args:
        rnn_type: "lstm" or "gru".
        hidden_size: Width H of the states, both directions together; inputs are half as wide.
        rows: Row lengths of each batch; times are the mean per batch.
        training: Whether a run is forward and backward, or forward without gradients.
        device: The device that they run on.
    """
    torch.manual_seed(0)
    width = hidden_size // _NUM_DIRECTIONS
    ours = MaskedRecurrence(input_size=width, hidden_size=hidden_size, rnn_type=rnn_type).to(device)
    baseline = _MODULES[rnn_type](width, width, batch_first=True, bidirectional=True).to(device)
    copy_weights(ours, baseline)
    batches = [_draw_batch(lengths, width, device) for lengths in rows]
    build_run = _build_training_run if training else _build_inference_run
    functions: dict[str, tuple[nn.Module, Callable[[RecurrentBatch], torch.Tensor]]] = {
        OURS: (ours, lambda batch: ours(batch.x, batch.mask)[-1]),
        PACKED: (baseline, lambda batch: _run_packed(baseline, batch)),
        PADDED: (baseline, lambda batch: baseline(batch.x)[0]),
    }
    has_padding = any(min(lengths) < max(lengths) for lengths in rows)
    implementations = [
        Implementation(
            name,
            build_run(module, compute_states, batches),
            comparable=name != PADDED or not has_padding,
            scale=1 / len(batches),
        )
        for name, (module, compute_states) in functions.items()
    ]
    tokens_per_batch = sum(map(sum, rows)) / len(rows)
    return [*implementations, _build_matrix_products(rnn_type, width, tokens_per_batch, training, device)]


def _draw_batch(lengths: Sequence[int], width: int, device: torch.device) -> RecurrentBatch:
    mask = build_right_padded_mask(lengths)
    grad_states = torch.randn(*mask.shape, _NUM_DIRECTIONS * width).masked_fill(~mask[..., None], 0)
    x = torch.randn(*mask.shape, width)
    return RecurrentBatch(x.to(device), mask.to(device), torch.tensor(lengths), grad_states.to(device))


def _run_packed(module: nn.Module, batch: RecurrentBatch) -> torch.Tensor:
    packed = pack_padded_sequence(batch.x, batch.lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(module(packed)[0], batch_first=True)[0]


def _build_training_run(
    module: nn.Module, compute_states: Callable[[RecurrentBatch], torch.Tensor], batches: Sequence[RecurrentBatch]
) -> Callable[[], Results]:
    def run() -> Results:
        module.zero_grad()
        results: dict[str, torch.Tensor | None] = {}
        for index, batch in enumerate(batches):
            batch.x.requires_grad_().grad = None
            states = compute_states(batch)
            states.backward(batch.grad_states)
            results |= {f"states {index}": states.detach(), f"gradient of input {index}": batch.x.grad}
        for index, parameter in enumerate(module.parameters()):
            results[f"gradient of weight {index}"] = parameter.grad
        return results

    return run


def _build_inference_run(
    module: nn.Module, compute_states: Callable[[RecurrentBatch], torch.Tensor], batches: Sequence[RecurrentBatch]
) -> Callable[[], Results]:
    module.eval()

    @torch.inference_mode()
    def run() -> Results:
        return {f"states {index}": compute_states(batch) for index, batch in enumerate(batches)}

    return run


def _build_matrix_products(rnn_type: str, width: int, tokens: float, training: bool, device: torch.device) -> Implementation:
    """Multiply one large matrix of the same widths, and scale its time to the products of the non-padding tokens.

    A backward pass has two products for each product of the forward pass.
    """
    left = torch.randn(_PRODUCT_ROWS, 2 * width, device=device)
    right = torch.randn(2 * width, _NUM_GATES[rnn_type] * width, device=device)

    @torch.inference_mode()
    def run() -> Results:
        return {"product": left @ right}

    products = _NUM_DIRECTIONS * (3 if training else 1)
    return Implementation(PRODUCTS, run, comparable=False, scale=products * tokens / _PRODUCT_ROWS)
