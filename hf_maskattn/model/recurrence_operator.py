"""The recurrence as an operator of torch, which compilers and exporters keep whole for any batch size and time.

Traced into, torch's recurrent kernels freeze the number of steps. As one operator it stays open, and an exporter can put the
native node of its format in its place.
"""

import torch

from .recurrent_kernel import arrange, run_over_cells

# To be counted up with any change of signature or meaning: checkpoints carry this file, and one process may load several.
NAME = "hf_maskattn::recurrence_v1"


def _register() -> None:
    """Define the operator, once in a process: this file may be loaded twice, installed and beside weights."""
    namespace, name = NAME.split("::")
    if hasattr(getattr(torch.ops, namespace), name):
        return

    @torch.library.custom_op(NAME, mutates_args=())
    def recurrence(
        x: torch.Tensor, mask: torch.Tensor, weights: list[torch.Tensor], rnn_type: str, num_segments: int
    ) -> torch.Tensor:
        directions = [weights[start : start + 4] for start in range(0, len(weights), 4)]
        with torch.autocast(x.device.type, enabled=False):
            cells = arrange(rnn_type, mask, len(directions), weights[1].shape[1], num_segments or None)
            return run_over_cells(rnn_type, x.to(weights[0].dtype), directions, cells).contiguous()

    @recurrence.register_fake
    def _(x, mask, weights, rnn_type, num_segments):
        return x.new_empty(*x.shape[:2], weights[1].shape[1] * (len(weights) // 4), dtype=weights[0].dtype)


_register()


def recurrence_operator(
    rnn_type: str, x: torch.Tensor, mask: torch.Tensor, weights: list[list[torch.Tensor]], num_segments: int | None = None
) -> torch.Tensor:
    """Run one layer as `run_over_cells` does, as an operator, without gradient; the result has the dtype of the weights."""
    flat = [weight for direction in weights for weight in direction]
    return torch.ops.hf_maskattn.recurrence_v1(x, mask, flat, rnn_type, num_segments or 0)
