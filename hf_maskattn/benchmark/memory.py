"""The most memory that a run holds beyond what was there before it."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from hf_maskattn.benchmark.profiling import profile_on_cpu
from hf_maskattn.benchmark.report import Row
from hf_maskattn.benchmark.ways import Way, check, measurable


def weigh(ways: Sequence[Way], device: torch.device) -> Row:
    """Measure the peak of extra memory of each way that passes the gate.

    Args:
        ways: The ways; the first is the one that the others must equal.
        device: Where they run.

    Returns:
        Megabytes (1e6 bytes), results included.
    """
    outcomes = check(ways)
    peak = _peak_on_cpu if device.type == "cpu" else _peak_on_accelerator
    for name, run in measurable(ways, outcomes).items():
        outcomes[name] = replace(outcomes[name], value=peak(run) / 1e6)
    return Row(outcomes)


def _peak_on_cpu(run: Callable[[], object]) -> int:
    """Add up what torch's allocator gives and takes back, in the order of time; scratch memory of libraries is not seen."""
    profiler = profile_on_cpu(run, memory=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    changes = sorted((event for event in events if event["name"] == "[memory]"), key=lambda event: event["ts"])
    held = peak = 0
    for event in changes:
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak


def _peak_on_accelerator(run: Callable[[], object]) -> int:
    torch.accelerator.synchronize()
    torch.accelerator.memory.reset_peak_memory_stats()
    before = torch.accelerator.memory.memory_allocated()
    run()
    torch.accelerator.synchronize()
    return torch.accelerator.memory.max_memory_allocated() - before
