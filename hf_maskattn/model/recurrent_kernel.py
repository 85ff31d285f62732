"""One call of torch's own recurrent kernel over a batch in front layout, wherever it runs."""

import torch
from torch import nn


def run_recurrence(rnn: nn.LSTM | nn.GRU, x: torch.Tensor) -> torch.Tensor:
    """Run one direction of one layer from a zero state.

    Args:
        rnn: torch's module of one layer and one direction, `batch_first`.
        x: `[B, L, input_size]`, L >= 1.

    Returns:
        The states `[B, L, H]`.

    Numerics:
        Under autocast on a CPU without 16-bit instructions the recurrence runs in the dtype of its weights: torch's 16-bit
        kernel raises there.
    """
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and not _cpu_has_kernel(torch.get_autocast_dtype("cpu")):
        with torch.autocast("cpu", enabled=False):
            return rnn(x.to(next(rnn.parameters()).dtype))[0]
    return rnn(x)[0]


def _cpu_has_kernel(dtype: torch.dtype) -> bool:
    """Tell whether oneDNN has a recurrent kernel for a 16-bit dtype on this CPU."""
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_fp16_supported()
