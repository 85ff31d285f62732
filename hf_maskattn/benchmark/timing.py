"""Times that can be compared: every way takes its turn in every round, and the median of the rounds counts."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median, quantiles

import torch

from hf_maskattn.benchmark.report import Row
from hf_maskattn.benchmark.ways import Way, check, measurable

FEWEST_RUNS = 3
MOST_RUNS = 200


def race(ways: Sequence[Way], seconds: float, device: torch.device) -> Row:
    """Measure the time of each way that passes the gate.

    Args:
        ways: The ways; the first is the one that the others must equal.
        seconds: About how long to measure; less where 200 rounds are enough, more where 3 rounds take longer.
        device: Where they run.

    Returns:
        Medians in milliseconds.
    """
    outcomes = check(ways)
    times = interleaved_times(measurable(ways, outcomes), seconds, device)
    for way in ways:
        if way.name in times:
            low, _, high = quantiles(times[way.name], n=4, method="inclusive")
            middle = median(times[way.name])
            outcomes[way.name] = replace(outcomes[way.name], value=1e3 * middle * way.scale, spread=(high - low) / 2 / middle)
    return Row(outcomes, runs=max(map(len, times.values()), default=0))


def interleaved_times(runs: Mapping[str, Callable[[], object]], seconds: float, device: torch.device) -> dict[str, list[float]]:
    """Time functions in turns, in each second round from the last to the first, so that a slow minute hits all of them.

    Returns:
        Seconds of each run, by name, the first round left out.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs)
    warm_up = sum(_seconds_of(run, device) for run in runs.values())
    rounds = min(MOST_RUNS, max(FEWEST_RUNS, int(seconds / max(warm_up, 1e-9))))
    for _ in range(rounds):
        for name in order:
            times[name].append(_seconds_of(runs[name], device))
        order.reverse()
    return times


def _seconds_of(run: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait for an accelerator."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
