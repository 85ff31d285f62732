"""The machine and the versions that numbers hold for."""

import os
import platform
from pathlib import Path

import torch
import transformers

from hf_maskattn import __version__


def describe_machine(device: torch.device) -> dict[str, str]:
    """Tell what runs a benchmark, by name."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "CPU": f"{_cpu_model()} ({torch.backends.cpu.get_cpu_capability()})",
        "cores": f"{cores}, of which torch uses {torch.get_num_threads()} at once",
        "oneDNN": f"bf16 {'yes' if _cpu_has_bf16() else 'no'}" if torch.backends.mkldnn.is_available() else "no",
        "device": device.type if device.type == "cpu" else torch.get_device_module(device).get_device_name(device),
        "versions": f"hf_maskattn {__version__}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"Python {platform.python_version()}",
    }


def has_bf16(device: torch.device) -> bool:
    """Tell whether a device computes with 16-bit brain floats in its own instructions."""
    if device.type == "cpu":
        return _cpu_has_bf16()
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def _cpu_has_bf16() -> bool:
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
