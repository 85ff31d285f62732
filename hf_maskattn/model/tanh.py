"""The hyperbolic tangent by way of the sigmoid, for which torch has a much faster kernel on a CPU."""

import torch


def tanh(x: torch.Tensor) -> torch.Tensor:
    """Compute tanh of a tensor of any shape.

    Numerics:
        Of a float32 tensor on a CPU as 2 sigmoid(2 x) - 1, with an error of about 2e-7; otherwise torch's own.
    """
    return torch.tanh(x) if torch.compiler.is_compiling() else _Tanh.apply(x)


def tanh_(x: torch.Tensor) -> torch.Tensor:
    """Compute `tanh` in place, without a gradient."""
    if x.device.type == "cpu" and x.dtype == torch.float32:
        return x.mul_(2).sigmoid_().mul_(2).sub_(1)
    return x.tanh_()


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = tanh_(x.clone())
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        return torch.ops.aten.tanh_backward(grad, y)
