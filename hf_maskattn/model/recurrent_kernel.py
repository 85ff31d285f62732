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
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        with torch.autocast("cpu", enabled=False):
            return rnn(x.to(next(rnn.parameters()).dtype))[0]
    return rnn(x)[0]
