"""All measurements, one after the other."""

from collections.abc import Callable, Sequence

import torch

from hf_maskattn.benchmark.attention import attention_plans
from hf_maskattn.benchmark.inference import inference_plans
from hf_maskattn.benchmark.machine import describe_machine
from hf_maskattn.benchmark.plan import Plan, Setting
from hf_maskattn.benchmark.recurrence import recurrence_plans
from hf_maskattn.benchmark.report import Report, Table
from hf_maskattn.benchmark.rnnsearch import rnnsearch_plans
from hf_maskattn.benchmark.training import training_plans

PARTS: dict[str, Callable[[Setting], list[Plan]]] = {
    "recurrence": recurrence_plans,
    "attention": attention_plans,
    "training": training_plans,
    "inference": inference_plans,
    "rnnsearch": rnnsearch_plans,
}
SECONDS, QUICK_SECONDS = 5.0, 1.5
"""How long a case is measured."""

OnCase = Callable[[str, int, int], None]


def benchmark(
    *,
    lengths: Sequence[int],
    part: str | None = None,
    quick: bool = False,
    device: str | None = None,
    on_case: OnCase = lambda case, done, total: None,
) -> Report:
    """Measure our ways against others.

    Args:
        lengths: Tokens of each text of a real corpus, from which real batches are drawn.
        part: One of `PARTS`; None for all.
        quick: Whether to measure fewer cases, for a shorter time.
        device: Where everything runs; the default is the accelerator if there is one, else the CPU.
        on_case: Told before each case its name, how many are done, and how many there are.

    Returns:
        All tables.

    Raises:
        ValueError: If there are too few lengths, or there is no such part or device.
    """
    if part is not None and part not in PARTS:
        raise ValueError(f"part={part!r} is unknown; choose from {[*PARTS]}.")
    setting = Setting(_find_device(device), lengths, quick, QUICK_SECONDS if quick else SECONDS)
    plans = [plan for name in ([part] if part else PARTS) for plan in PARTS[name](setting)]
    total = sum(len(plan.cases) for plan in plans)
    tables = []
    done = 0
    for plan in plans:
        rows = {}
        for case, measure in plan.cases.items():
            on_case(f"{plan.title}: {case}", done, total)
            rows[case] = measure()
            done += 1
        tables.append(Table(plan.title, plan.caption, rows, plan.ratios, plan.unit))
    on_case("", total, total)
    return Report(describe_machine(setting.device), tables)


def _find_device(name: str | None) -> torch.device:
    if name is None:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={name!r} is not here: {str(error).splitlines()[0]}") from error
    return device
