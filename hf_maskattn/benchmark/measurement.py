"""Check that implementations compute the same results, then measure their time and memory."""

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles

import torch
from torch.profiler import ProfilerActivity, profile

from hf_maskattn.benchmark.report import Outcome, Row

OUTPUT_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4
"""Largest rounding difference in float32, relative to the largest value of the tensor. A gradient is a sum over all tokens in
which terms much larger than the result cancel."""

MIN_ROUNDS, MAX_ROUNDS = 3, 200


@dataclass(frozen=True)
class Setting:
    """The settings that all tables use.

    Attributes:
        device: The device that everything runs on.
        lengths: Number of tokens of each text of a corpus.
        quick: Whether to measure fewer cases.
        seconds: Approximate time to measure each case.
    """

    device: torch.device
    lengths: Sequence[int]
    quick: bool
    seconds: float


Results = Mapping[str, torch.Tensor | None]
"""Outputs and gradients by name; None for a parameter that received no gradient."""


@dataclass(frozen=True)
class Implementation:
    """One of the implementations that a case compares.

    Attributes:
        name: Heading of its column.
        run: Runs the case once and returns outputs and gradients by name, gradients as "gradient of ..."; None if the
            implementation cannot run here.
        comparable: Whether it computes the same function as the first implementation of the case.
        scale: Factor for measured times, such as 1 / 4 if one run processes four batches.
        remark: Why it cannot run, or how to read its numbers.
    """

    name: str
    run: Callable[[], Results] | None
    comparable: bool = True
    scale: float = 1.0
    remark: str = ""


def check_results(implementations: Sequence[Implementation]) -> dict[str, Outcome]:
    """Run each implementation once, with the same random seed, and compare its results with those of the first.

    Returns:
        Outcomes without values, by the name of the implementation.

    Numerics:
        TF32 is disabled, since it rounds differently in each implementation.
    """
    outcomes: dict[str, Outcome] = {}
    expected: Results | None = None
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for implementation in implementations:
            outcomes[implementation.name] = Outcome(remark=implementation.remark)
            if implementation.run is None:
                continue
            torch.manual_seed(0)
            results = implementation.run()
            if expected is None:
                expected = results
            elif implementation.comparable:
                outcomes[implementation.name] = _compare(expected, results, implementation.remark)
    return outcomes


def select_runnable(
    implementations: Sequence[Implementation], outcomes: Mapping[str, Outcome]
) -> dict[str, Callable[[], Results]]:
    """Select what is measured after `check_results`: implementations that can run and returned the expected results."""
    return {
        implementation.name: implementation.run
        for implementation in implementations
        if implementation.run is not None and not outcomes[implementation.name].unequal
    }


def _compare(expected: Results, results: Results, remark: str) -> Outcome:
    differences = {name: _relative_difference(value, results[name]) for name, value in expected.items()}
    name = max(differences, key=lambda name: differences[name] / _tolerance(name))
    if differences[name] <= _tolerance(name):
        return Outcome(difference=differences[name], remark=remark)
    return Outcome(difference=differences[name], unequal=True, remark=f"unequal, {differences[name]:.0e} in {name}")


def _tolerance(name: str) -> float:
    return GRADIENT_TOLERANCE if name.startswith("gradient") else OUTPUT_TOLERANCE


def _relative_difference(expected: torch.Tensor | None, result: torch.Tensor | None) -> float:
    if expected is None or result is None:
        return 0.0 if expected is result else math.inf
    if expected.shape != result.shape:
        return math.inf
    largest = expected.abs().max().item() or 1.0
    difference = (expected - result).abs().max().item() / largest
    return difference if math.isfinite(difference) else math.inf


def compare_times(implementations: Sequence[Implementation], seconds: float, device: torch.device) -> Row:
    """Measure the time of each implementation whose results are equal to those of the first, in about `seconds`.

    Returns:
        Medians in milliseconds, of `MIN_ROUNDS` to `MAX_ROUNDS` rounds.
    """
    outcomes = check_results(implementations)
    times = measure_interleaved(select_runnable(implementations, outcomes), seconds, device)
    for implementation in implementations:
        if implementation.name in times:
            low, _, high = quantiles(times[implementation.name], n=4, method="inclusive")
            middle = median(times[implementation.name])
            outcomes[implementation.name] = replace(
                outcomes[implementation.name],
                value=1e3 * middle * implementation.scale,
                spread=(high - low) / 2 / middle,
            )
    return Row(outcomes, runs=max(map(len, times.values()), default=0))


def measure_interleaved(
    runs: Mapping[str, Callable[[], object]], seconds: float, device: torch.device
) -> dict[str, list[float]]:
    """Time functions in turns, in reverse order in every second round, so that a slow period affects all of them.

    Returns:
        Seconds of each run, by name, without the warm-up round.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs)
    warm_up = sum(_measure_seconds(run, device) for run in runs.values())
    rounds = min(MAX_ROUNDS, max(MIN_ROUNDS, int(seconds / max(warm_up, 1e-9))))
    for _ in range(rounds):
        for name in order:
            times[name].append(_measure_seconds(runs[name], device))
        order.reverse()
    return times


def _measure_seconds(run: Callable[[], object], device: torch.device) -> float:
    _synchronize(device)
    start = time.perf_counter()
    run()
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@contextmanager
def limit_threads(num_threads: int | None) -> Iterator[None]:
    """Let torch use `num_threads` threads inside the block; None leaves its setting."""
    previous = torch.get_num_threads()
    torch.set_num_threads(num_threads or previous)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


def compare_peak_memory(implementations: Sequence[Implementation], device: torch.device) -> Row:
    """Measure the additional peak memory of each implementation whose results are equal to those of the first.

    Returns:
        Megabytes (1e6 bytes), results included.
    """
    outcomes = check_results(implementations)
    measure = _measure_cpu_peak if device.type == "cpu" else _measure_accelerator_peak
    for name, run in select_runnable(implementations, outcomes).items():
        outcomes[name] = replace(outcomes[name], value=measure(run) / 1e6)
    return Row(outcomes)


def _measure_cpu_peak(run: Callable[[], object]) -> int:
    """Accumulate allocations and releases of torch's allocator in order of time; memory that libraries allocate is not seen."""
    profiler = profile_on_cpu(run, memory=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    changes = sorted((event for event in events if event["name"] == "[memory]"), key=lambda event: event["ts"])
    allocated = peak = 0
    for event in changes:
        allocated += event["args"]["Bytes"]
        peak = max(peak, allocated)
    return peak


def _measure_accelerator_peak(run: Callable[[], object]) -> int:
    torch.accelerator.synchronize()
    torch.accelerator.memory.reset_peak_memory_stats()
    allocated = torch.accelerator.memory.memory_allocated()
    run()
    torch.accelerator.synchronize()
    return torch.accelerator.memory.max_memory_allocated() - allocated


def profile_on_cpu(run: Callable[[], object], memory: bool = False) -> profile:
    """Profile a function on the CPU, with its allocations if `memory` is set."""
    with _silence_stderr(), profile(activities=[ProfilerActivity.CPU], profile_memory=memory) as profiler:
        run()
    return profiler


@contextmanager
def _silence_stderr() -> Iterator[None]:
    """Redirect the file descriptor, since the profiler's native code would write into the progress bar."""
    sys.stderr.flush()
    stderr = os.dup(2)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(devnull)
