"""Ways to do the same work, and the gate before every measurement: a way with another result has no time."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from hf_maskattn.benchmark.report import Outcome

OUTPUT_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4
"""Largest difference that is rounding in 32 bits, as a share of the largest value of an output, or of a gradient, which is a
sum over all tokens in which terms far larger than the result cancel."""

Results = Mapping[str, torch.Tensor | None]
"""Outputs and gradients by name; None for a gradient that did not come."""


@dataclass(frozen=True)
class Way:
    """One way to do the work of a case.

    Attributes:
        name: What a table calls it.
        run: Does the work once and gives outputs and gradients by name, a gradient as "gradient of ..."; None if this way
            cannot run here.
        comparable: Whether it computes the function of the first way.
        scale: What a measured time is multiplied by, such as 1 / 4 where a run works on four batches.
        remark: Why it cannot run, or how to read its numbers.
    """

    name: str
    run: Callable[[], Results] | None
    comparable: bool = True
    scale: float = 1.0
    remark: str = ""


def check(ways: Sequence[Way]) -> dict[str, Outcome]:
    """Run each way once, from the same random seed, and compare outputs and gradients with those of the first.

    Returns:
        Outcomes without values, by the name of the way.

    Numerics:
        Accelerators run this check without TF32, in which they round differently from way to way.
    """
    outcomes: dict[str, Outcome] = {}
    expected: Results = {}
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for place, way in enumerate(ways):
            if way.run is None:
                outcomes[way.name] = Outcome(remark=way.remark)
                continue
            torch.manual_seed(0)
            found = way.run()
            if place == 0:
                expected = found
            outcomes[way.name] = (
                _compare(expected, found, way.remark) if place and way.comparable else Outcome(remark=way.remark)
            )
    return outcomes


def measurable(ways: Sequence[Way], outcomes: Mapping[str, Outcome]) -> dict[str, Callable[[], Results]]:
    """List what may be measured after `check`: what can run, and is not unequal."""
    return {way.name: way.run for way in ways if way.run is not None and not outcomes[way.name].unequal}


def _compare(expected: Results, found: Results, remark: str) -> Outcome:
    differences = {name: _difference(value, found[name]) for name, value in expected.items()}
    name = max(differences, key=lambda name: differences[name] / _tolerance(name))
    if differences[name] <= _tolerance(name):
        return Outcome(difference=differences[name], remark=remark)
    return Outcome(difference=differences[name], unequal=True, remark=f"unequal, {differences[name]:.0e} in {name}")


def _tolerance(name: str) -> float:
    return GRADIENT_TOLERANCE if name.startswith("gradient") else OUTPUT_TOLERANCE


def _difference(expected: torch.Tensor | None, found: torch.Tensor | None) -> float:
    if expected is None or found is None:
        return 0.0 if expected is found else math.inf
    if expected.shape != found.shape:
        return math.inf
    largest = expected.abs().max().item() or 1.0
    difference = (expected - found).abs().max().item() / largest
    return difference if math.isfinite(difference) else math.inf
