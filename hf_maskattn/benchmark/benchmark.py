"""Run the measurements of all parts."""

import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import transformers

from hf_maskattn import __version__
from hf_maskattn.benchmark.attention import plan_attention
from hf_maskattn.benchmark.inference import has_bf16, plan_inference
from hf_maskattn.benchmark.measurement import Setting
from hf_maskattn.benchmark.recurrence import plan_recurrence
from hf_maskattn.benchmark.report import Report, Table
from hf_maskattn.benchmark.rnnsearch import plan_rnnsearch
from hf_maskattn.benchmark.training import plan_training

PARTS: dict[str, Callable[[Setting], list[Table]]] = {
    "recurrence": plan_recurrence,
    "attention": plan_attention,
    "training": plan_training,
    "inference": plan_inference,
    "rnnsearch": plan_rnnsearch,
}
SECONDS, QUICK_SECONDS = 5.0, 1.5
"""Approximate time to measure a case."""

OnCase = Callable[[str, int, int], None]


def benchmark(
    *,
    lengths: Sequence[int],
    part: str | None = None,
    quick: bool = False,
    device: str | None = None,
    on_case: OnCase = lambda case, done, total: None,
) -> Report:
    """Measure our models against baselines.

    Args:
        lengths: Number of tokens of each text of a corpus, from which batches are drawn.
        part: One of `PARTS`; None for all.
        quick: Whether to measure fewer cases, each for a shorter time.
        device: The device to run on; None selects the accelerator if there is one, else the CPU.
        on_case: Called before each case with its name, the number of cases that are done, and the number of all cases.

    Returns:
        All tables.

    Raises:
        ValueError: If there are too few lengths, or `part` or `device` is unknown.
    """
    if part is not None and part not in PARTS:
        raise ValueError(f"`part` must be one of {[*PARTS]}, got {part!r}.")
    setting = Setting(_select_device(device), lengths, quick, QUICK_SECONDS if quick else SECONDS)
    tables = [table for name in ([part] if part else PARTS) for table in PARTS[name](setting)]
    total = sum(len(table.cases) for table in tables)
    done = 0
    for table in tables:
        for case, measure in table.cases.items():
            on_case(f"{table.title}: {case}", done, total)
            table.rows[case] = measure()
            done += 1
    on_case("", total, total)
    return Report(describe_machine(setting.device), tables)


def _select_device(name: str | None) -> torch.device:
    if name is None:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"`device` must be available, got {name!r}. {str(error).splitlines()[0]}") from error
    return device


def describe_machine(device: torch.device) -> dict[str, str]:
    """Describe the hardware and the versions that the numbers were measured with."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    bf16 = "yes" if has_bf16(torch.device("cpu")) else "no"
    return {
        "CPU": f"{_read_cpu_model()} ({torch.backends.cpu.get_cpu_capability()})",
        "cores": f"{cores} (torch threads: {torch.get_num_threads()})",
        "oneDNN": f"bf16 {bf16}" if torch.backends.mkldnn.is_available() else "no",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "versions": f"hf_maskattn {__version__}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"Python {platform.python_version()}",
    }


def _read_cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
