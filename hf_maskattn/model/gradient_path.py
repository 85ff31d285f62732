"""Hidden states and attention weights that a caller gets are those that the rest of the model is computed from.

A copy would have no gradient: `outputs.hidden_states[0].retain_grad()` finds one only where the outputs depend on that tensor.
"""

import torch

from .masking import RealColumns


class TensorRecorder:
    """Records tensors to be returned, over all columns of a batch, and lets the computation go on from them.

    Args:
        columns: The columns of the batch that a tensor to be recorded has.

    Attributes:
        tensors: The recorded tensors, over all columns, in the order of the calls.
    """

    def __init__(self, columns: RealColumns):
        self.columns = columns
        self.tensors: list[torch.Tensor] = []

    def record(self, x: torch.Tensor, dim: int = 1) -> torch.Tensor:
        """Record a tensor whose columns are its dimension `dim`.

        Returns:
            `x` bit for bit, computed from the recorded tensor: what is to be used from here on.
        """
        recorded = self.columns.widen(x, dim)
        self.tensors.append(recorded)
        return x if recorded is x else compute_from(x, self.columns.narrow(recorded, dim))


def compute_from(value: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Return `value` with the gradient of `source`, which holds the same numbers up to rounding.

    Args:
        value: Any shape; its own gradient is not used.
        source: Same shape.
    """
    if not source.requires_grad:
        return value
    return source if torch.compiler.is_compiling() else _ComputeFrom.apply(value.detach(), source)


class _ComputeFrom(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, source):
        return value

    @staticmethod
    def backward(ctx, grad):
        return None, grad
