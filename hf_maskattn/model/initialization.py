"""First values of recurrent parameters, as whole tensors: a slice written in place would overwrite loaded weights."""

import torch
from torch import nn


def recurrent_weight(name: str, like: torch.Tensor, gates: int) -> torch.Tensor:
    """Draw the stacked gate matrices of one of torch's recurrent modules.

    Args:
        name: torch's name of the parameter: `weight_ih_*` is drawn from Xavier's uniform distribution, `weight_hh_*` is
            orthogonal, each gate on its own.
        like: The parameter, `[gates * H, in]`, for shape, dtype and device.
        gates: Number of gates stacked in it.

    Returns:
        A tensor like the parameter.

    Source:
        Glorot and Bengio 2010; Saxe et al. 2014 (arXiv:1312.6120).
    """
    draw = nn.init.orthogonal_ if name.startswith("weight_hh") else nn.init.xavier_uniform_
    blocks = torch.empty(like.shape, dtype=torch.float32, device=like.device).chunk(gates)
    return torch.cat([draw(block) for block in blocks]).to(like.dtype)


def recurrent_bias(name: str, like: torch.Tensor, gates: int) -> torch.Tensor:
    """Build the bias of one of torch's recurrent modules: 0, and 1 for the forget gate of an LSTM (`bias_ih_*`).

    Source:
        Jozefowicz et al. 2015, "An Empirical Exploration of Recurrent Network Architectures", for the forget gate.
    """
    forget_gate = torch.arange(gates, device=like.device) == 1  # torch's order: input, forget, cell, output
    opens = forget_gate if gates == 4 and name.startswith("bias_ih") else torch.zeros_like(forget_gate)
    return opens.to(like.dtype).repeat_interleave(like.shape[0] // gates)


def laid_out_like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Cut a tensor as a sharded parameter is cut, each process keeping its piece of what the first one drew.

    Args:
        value: The whole tensor.
        parameter: The parameter; for one that is not sharded `value` is returned as it is.
    """
    if type(parameter) is nn.Parameter:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    return distribute_tensor(value, parameter.device_mesh, parameter.placements) if isinstance(parameter, DTensor) else value
