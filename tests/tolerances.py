"""The tolerances of the tests, in one table, each with its reason.

Two ways to compute the same numbers order their operations differently. How far apart they come out grows with the unit
roundoff of the dtype (6e-8 in float32, 5e-4 in float16, 4e-3 in bfloat16), the number of operations in a row, and the scale of
the numbers. Limits are absolute, for numbers up to 1; where numbers may be larger, `assert_near` scales them.

Each limit is at least three times what was measured with torch 2.13.0 and 2.14.1, ATEN_CPU_CAPABILITY=default, avx2 and
avx512, one thread and two. What is exact is compared with `torch.equal`, without a tolerance.
"""

import torch

from hf_maskattn.benchmark.report import Outcome

OUTPUT_BY_DTYPE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""States, contexts, weights and logits of one pass over about ten tokens: some 10 roundings in a row."""

OUTPUT = OUTPUT_BY_DTYPE[torch.float32]

GRADIENT_BY_DTYPE = {torch.float64: 1e-10, torch.float32: 1e-5}
"""Gradients, losses of training: sums over all tokens of a batch, in which terms larger than the result cancel."""

GRADIENT = GRADIENT_BY_DTYPE[torch.float32]

MANY_STEPS = 1e-5
"""Outputs after many passes in a row, such as the words of `generate()`, or by another runtime (ONNX), another kernel or a
change of the weights that cancels (LoRA merged)."""

LOG_PROBABILITY = 1e-4
"""Sums of log-probabilities and logits over the words of a text: numbers of about 10, added for many steps."""

TRAINED = 1e-4
"""Weights and losses after steps of an optimizer, which divides a gradient by its size: rounding moves a weight by a share of
the learning rate."""

WEIGHT_SUM_BY_DTYPE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Sums of attention weights: each weight is rounded once, so the sum of them is off by at most one unit roundoff (a quarter of
these limits in 16 bits)."""

AUTOCAST, AUTOCAST_OF_PAIRS = 0.15, 0.05
"""Outputs and gradients under autocast in bfloat16 against float32, of encoders, whose loss may be a sum of squares over all
tokens, and of encoder-decoders, whose loss is a mean: every product is rounded to 8 bits, a few in a row."""


def assert_near(found: torch.Tensor, expected: torch.Tensor, tolerance: float, name: str = "") -> None:
    """Compare within a tolerance of numbers up to 1, or relative to the largest of `expected` if it is larger."""
    size = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    torch.testing.assert_close(found, expected, atol=tolerance * size, rtol=0, msg=lambda text: f"{name}: {text}")


def assert_same_function(outcome: Outcome) -> None:
    """A benchmark compared this way with the first one, and found them equal within its tolerances."""
    assert outcome.difference is not None
    assert not outcome.unequal, outcome.remark
