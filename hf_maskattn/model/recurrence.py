"""A stack of recurrent layers for which padding does not exist, without PackedSequence."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import pad
from transformers.modeling_layers import GradientCheckpointingLayer

from .cells import CellLayout
from .recurrence_operator import recurrence_operator
from .recurrent_kernel import arrange, run_over_cells

RNN_TYPES = ("lstm", "gru")


class DirectionWeights(nn.RNNBase):
    """The weights of one layer in one direction, under torch's own names and with torch's own care for cuDNN.

    It is no nn.LSTM or nn.GRU, which torch's compiler does not look into. A call returns the weights, so that what hooks a
    module, such as accelerate to bring offloaded weights, has its moment.
    """

    weight_ih_l0: torch.Tensor
    weight_hh_l0: torch.Tensor
    bias_ih_l0: torch.Tensor
    bias_hh_l0: torch.Tensor

    def __init__(self, rnn_type: str, input_size: int, width: int):
        super().__init__(rnn_type.upper(), input_size, width, batch_first=True)
        self.register_state_dict_post_hook(_give_each_weight_its_own_storage)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """List the weights in the order of torch's kernels; `x`, the input of the layer, is not read."""
        return [self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0]


def _give_each_weight_its_own_storage(module: nn.Module, state_dict: dict, prefix: str, local_metadata: dict) -> None:
    """Let the weights in a state dict look at the same memory, each through a storage that ends where it does.

    cuDNN has the weights of a module in one buffer. What saves a model takes tensors with one storage for one tensor:
    accelerate 1.15 keeps the first and leaves out the rest.
    """
    for name, _ in module.named_parameters(recurse=False):
        weight = state_dict[prefix + name]
        if type(weight) is torch.Tensor and weight.untyped_storage().nbytes() > weight.nbytes:
            state_dict[prefix + name] = torch.from_dlpack(weight)


class RecurrentLayer(GradientCheckpointingLayer):
    """One recurrent layer, in one direction or both.

    Args:
        input_size: Width of the input.
        output_size: Width H of the output, both directions together.
        rnn_type: "lstm" or "gru".
        bidirectional: Whether to run in both directions.

    Raises:
        ValueError: If `rnn_type` is unknown, or H is odd and the layer bidirectional.
    """

    def __init__(self, *, input_size: int, output_size: int, rnn_type: str, bidirectional: bool):
        super().__init__()
        if rnn_type not in RNN_TYPES:
            raise ValueError(f"rnn_type={rnn_type!r} is unknown; choose from {[*RNN_TYPES]}.")
        if bidirectional and output_size % 2:
            raise ValueError(
                f"hidden_size={output_size} is odd, but each direction of a bidirectional layer gives half of it: "
                f"use {output_size + 1}, or bidirectional=False."
            )
        width = output_size // 2 if bidirectional else output_size
        self.rnn_type = rnn_type
        self.forward_rnn = DirectionWeights(rnn_type, input_size, width)
        self.backward_rnn = DirectionWeights(rnn_type, input_size, width) if bidirectional else None

    def forward(self, x: torch.Tensor, mask: torch.Tensor, cells: CellLayout | None, num_segments: int | None) -> torch.Tensor:
        """Run the layer: `[B, T, input_size]` -> `[B, T, H]`, 0 at pads.

        Args:
            x: `[B, T, input_size]`, T >= 1.
            mask: `[B, T]`, bool, True = real.
            cells: The arrangement of the batch by `arrange`, for all layers; not read in a compiled graph.
            num_segments: See `arrange`; read in a compiled graph alone.
        """
        weights = [self.forward_rnn(x)]
        if self.backward_rnn is not None:
            weights.append(self.backward_rnn(x))
        if torch.compiler.is_compiling():
            return recurrence_operator(self.rnn_type, x, mask, weights, num_segments)
        return run_over_cells(self.rnn_type, x, weights, cells)


class MaskedRecurrence(nn.Module):
    """Recurrent layers that read the real tokens of each row as if there were no others.

    Args:
        input_size: Width of the input.
        hidden_size: Width H of the output of each layer, both directions together.
        num_layers: Number of layers.
        rnn_type: "lstm" or "gru".
        bidirectional: Whether each layer runs in both directions.
        dropout: Dropout between layers.

    Raises:
        ValueError: If `num_layers` is below 1, or as `RecurrentLayer`.
    """

    def __init__(
        self,
        *,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        rnn_type: str = "lstm",
        bidirectional: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_hidden_layers={num_layers} must be at least 1.")
        self.rnn_type = rnn_type
        self.directions = 2 if bidirectional else 1
        self.width = hidden_size // self.directions
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            RecurrentLayer(
                input_size=hidden_size if layer else input_size,
                output_size=hidden_size,
                rnn_type=rnn_type,
                bidirectional=bidirectional,
            )
            for layer in range(num_layers)
        )

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor,
        num_segments: int | None = None,
        record: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Run all layers.

        Compiled for inference or exported, each layer is one operator in the graph. Compiled for training, the recurrence
        runs between two graphs: torch's kernels keep what their gradient needs where no graph can hold it.

        Args:
            x: `[B, T, input_size]`; what stands at pads is not read.
            mask: `[B, T]`, bool, True = real, in any arrangement.
            num_segments: Parts that time is cut into, so that rows that have ended cost little; None takes what costs
                least, and on an accelerator 1, which needs no host sync. The results are the same up to rounding.
            record: Called with the states of each layer; what it returns is used in their place.

        Returns:
            The states of every layer, each `[B, T, H]`, 0 at pads.

        Raises:
            ValueError: If `num_segments` is below 1.
        """
        if num_segments is not None and num_segments < 1:
            raise ValueError(f"num_segments={num_segments} must be at least 1.")
        if x.shape[1] == 0:
            # A pad changes nothing, and with it every parameter takes part, as it must under DistributedDataParallel.
            states = (layer_states[:, :0] for layer_states in self(pad(x, (0, 0, 0, 1)), pad(mask, (0, 1)), num_segments))
            return tuple(states) if record is None else tuple(record(layer_states) for layer_states in states)
        if torch.compiler.is_compiling() and torch.is_grad_enabled() and not torch.compiler.is_exporting():
            return self._run_between_graphs(x, mask, num_segments, record)
        return self._run(x, mask, num_segments, record)

    def _run(self, x, mask, num_segments, record) -> tuple[torch.Tensor, ...]:
        cells = None
        if not torch.compiler.is_compiling():
            cells = arrange(self.rnn_type, mask, self.directions, self.width, num_segments)
        states: tuple[torch.Tensor, ...] = ()
        for layer in self.layers:
            layer_states = layer(self.dropout(states[-1]) if states else x, mask, cells, num_segments)
            states = (*states, layer_states if record is None else record(layer_states))
        return states

    @torch.compiler.disable(reason="the recurrence trains between two graphs; for fullgraph=True compile under torch.no_grad()")
    def _run_between_graphs(self, x, mask, num_segments, record):
        return self._run(x, mask, num_segments, record)

    def last_state(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Take the state of each direction after its last real token: `[B, T, H]` -> `[B, H]`, 0 for a row without one."""
        if mask.shape[1] == 0:
            return self.last_state(pad(states, (0, 0, 0, 1)), pad(mask, (0, 1)))
        rows, columns = torch.arange(mask.shape[0], device=mask.device), torch.arange(mask.shape[1], device=mask.device)
        last = states[rows, torch.where(mask, columns, 0).amax(dim=1)]  # [B, H]
        if self.directions == 2:
            first = states[rows, torch.where(mask, columns, mask.shape[1] - 1).amin(dim=1)]
            last = torch.cat([last[:, : self.width], first[:, self.width :]], dim=-1)
        return last.masked_fill(~mask.any(dim=1, keepdim=True), 0)
