"""Checks of the values in a tensor that never make an accelerator wait for the host."""

from collections.abc import Callable

import torch


def host_can_read(tensor: torch.Tensor) -> bool:
    """Tell whether Python may look at the values of `tensor` for free: on a CPU, outside of compilation and export.

    A subclass of tensors, such as torch's fake tensors, may have no values to look at.
    """
    return tensor.device.type == "cpu" and type(tensor) is torch.Tensor and not torch.compiler.is_compiling()


def check_values(valid: torch.Tensor, message: Callable[[], str], short_message: str) -> None:
    """Raise where an element of `valid` is False.

    On a CPU the error is raised here. On a CUDA device the check is queued behind the work before it, and a failure
    surfaces as the device-side assertion `short_message`; other devices and compiled graphs are not checked.

    Args:
        valid: Boolean tensor of any shape, True where the value is good.
        message: Builds the full error text; called only after a failure, so it may read values.
        short_message: The text of the device-side assertion.

    Raises:
        ValueError: With `message()`, on a CPU.
    """
    if host_can_read(valid):
        if not bool(valid.all()):
            raise ValueError(message())
    elif valid.is_cuda and not torch.compiler.is_compiling():
        torch._assert_async(valid.all(), short_message)
