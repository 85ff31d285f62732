"""The tolerances of the tests, each with its reason.

Two implementations of a function order their operations differently. Their difference grows with the unit roundoff of the dtype
(6e-8 in float32, 5e-4 in float16, 4e-3 in bfloat16), the number of sequential operations, and the scale of the numbers. Limits
are absolute, for numbers up to 1; `assert_near` scales them for larger numbers.

Each limit is at least three times the difference that was measured with torch 2.13.0 and 2.14.1, ATEN_CPU_CAPABILITY=default,
avx2 and avx512, one thread and two. Exact results are compared with `torch.equal`, without a tolerance.
"""

import torch

from hf_maskattn.benchmark.report import Outcome

OUTPUT_BY_DTYPE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""States, contexts, weights and logits of one forward pass over about ten tokens: some 10 sequential roundings."""

OUTPUT = OUTPUT_BY_DTYPE[torch.float32]

GRADIENT_BY_DTYPE = {torch.float64: 1e-10, torch.float32: 1e-5}
"""Gradients and training losses: sums over all tokens of a batch, in which terms larger than the result cancel."""

GRADIENT = GRADIENT_BY_DTYPE[torch.float32]

MANY_STEPS = 1e-5
"""Outputs after many sequential steps, as in `generate()`, of another runtime (ONNX) or kernel, or after a change of weights
that cancels (merged LoRA)."""

LOG_PROBABILITY = 1e-4
"""Sums of log-probabilities and logits over the tokens of a text: numbers of about 10, added in many steps."""

TRAINED = 1e-4
"""Weights and losses after steps of an optimizer that divides a gradient by its size: rounding changes a weight by a fraction
of the learning rate."""

WEIGHT_SUM_BY_DTYPE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Sums of attention weights: each weight is rounded once, so the error of their sum is at most one unit roundoff (a quarter of
these limits in 16 bits)."""

AUTOCAST, PAIR_AUTOCAST = 0.15, 0.05
"""Outputs and gradients with autocast to bfloat16 compared with float32, where each product is rounded to 8 bits: encoders,
whose loss may be a sum of squares over all tokens, and encoder-decoders, whose loss is a mean."""


def assert_near(actual: torch.Tensor, expected: torch.Tensor, tolerance: float, name: str = "") -> None:
    """Compare within a tolerance for numbers up to 1, scaled by the largest finite value of `expected` if it is larger."""
    finite = expected[expected.isfinite()]
    size = max(1.0, finite.abs().max().item()) if finite.numel() else 1.0
    torch.testing.assert_close(actual, expected, atol=tolerance * size, rtol=0, msg=lambda text: f"{name}: {text}")


def assert_same_function(outcome: Outcome) -> None:
    """Assert that a benchmark compared an implementation with the first one, and they were equal."""
    assert outcome.difference is not None
    assert not outcome.unequal, outcome.remark
