"""torch's profiler without the lines that it writes into a progress bar."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

from hf_maskattn.benchmark.report import Outcome, Row
from hf_maskattn.benchmark.timing import interleaved_times
from hf_maskattn.benchmark.ways import Way


def profile_on_cpu(run: Callable[[], object], memory: bool = False) -> profile:
    """Profile a function on the CPU, with what it allocates if `memory` is set."""
    with _silent_stderr(), profile(activities=[ProfilerActivity.CPU], profile_memory=memory) as profiler:
        run()
    return profiler


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Send the file behind stderr away: native code writes past `sys.stderr`."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


RUNS = 7
STEP, REST = "whole step", "pooling, layout, head, loss"
PARTS = {
    "recurrent kernel": ("aten::lstm", "aten::mkldnn_rnn_layer_backward"),
    "embedding": ("aten::embedding", "aten::embedding_backward"),
    "dropout": ("aten::dropout",),
    "optimizer": ("aten::_fused_adamw_",),
}
"""Operators of each part; none runs inside of another."""


def step_shares(way: Way, device: torch.device) -> Row:
    """Divide the time of a training step of our LSTM classifier between its parts.

    Operators are timed by a profiler; what the step takes beyond them without a profiler, Python included, is the rest.

    Args:
        way: The step.
        device: Where it runs; on an accelerator nothing is measured.

    Returns:
        Milliseconds of the step, of each part and of the rest, medians of runs with and without a profiler in turns.
    """
    run = way.run
    if device.type != "cpu" or run is None:
        return Row({STEP: Outcome(remark="measured on a CPU only")})
    times: dict[str, list[float]] = {name: [] for name in (STEP, *PARTS)}
    for _ in range(RUNS):
        times[STEP] += interleaved_times({STEP: run}, 0.0, device)[STEP]
        totals = {event.key: event.cpu_time_total for event in profile_on_cpu(run).key_averages()}  # microseconds
        for part, operators in PARTS.items():
            times[part].append(1e-6 * sum(totals.get(operator, 0.0) for operator in operators))
    values = {name: 1e3 * median(found) for name, found in times.items()}
    values[REST] = values[STEP] - sum(values[part] for part in PARTS)
    return Row({name: Outcome(value * way.scale) for name, value in values.items()}, runs=RUNS)
