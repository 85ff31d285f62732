"""A stack of recurrent layers in which padding has no effect, without PackedSequence."""

import torch
from torch import nn
from torch.nn.functional import pad
from transformers.modeling_layers import GradientCheckpointingLayer

from .packing import PackedLayout
from .recurrent_kernel import choose_layout, recurrence_operator, run_layer

RNN_TYPES = ("lstm", "gru")


_KNOWS_EXPORT = torch.__version__ >= "2.13"
"""Whether `torch.compiler.is_exporting` is false within torch.compile. It is true in torch 2.8."""


class DirectionWeights(nn.RNNBase):
    """The weights of one layer in one direction, with torch's own parameter names and handling for cuDNN.

    It is no nn.LSTM or nn.GRU, which torch's compiler does not trace. A call returns the weights, so that hooks of modules,
    such as those with which accelerate brings offloaded weights, are run.
    """

    weight_ih_l0: torch.Tensor
    weight_hh_l0: torch.Tensor
    bias_ih_l0: torch.Tensor
    bias_hh_l0: torch.Tensor

    def __init__(self, rnn_type: str, input_size: int, width: int):
        super().__init__(rnn_type.upper(), input_size, width, batch_first=True)
        self.register_state_dict_post_hook(_separate_storages)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """List the weights in the order of torch's kernels; `x`, the input of the layer, is not read."""
        return [self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0]


def _separate_storages(module: nn.Module, state_dict: dict, prefix: str, local_metadata: dict) -> None:
    """Give each weight in a state dict a storage of its own size over the same memory.

    cuDNN keeps the weights of a module in one buffer. Functions that save a model take tensors with one storage for one tensor:
    accelerate 1.15 keeps the first and drops the others.
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
            raise ValueError(f"rnn_type must be one of {[*RNN_TYPES]}, got {rnn_type!r}.")
        if bidirectional and output_size % 2:
            raise ValueError(
                f"hidden_size must be even with bidirectional=True, because each direction has half of it, got {output_size}. "
                f"Use {output_size + 1}, or bidirectional=False."
            )
        width = output_size // 2 if bidirectional else output_size
        self.rnn_type = rnn_type
        self.forward_rnn = DirectionWeights(rnn_type, input_size, width)
        self.backward_rnn = DirectionWeights(rnn_type, input_size, width) if bidirectional else None

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor, layout: PackedLayout | None, num_time_chunks: int | None
    ) -> torch.Tensor:
        """Run the layer: `[B, T, input_size]` -> `[B, T, H]`, 0 at padding.

        Args:
            x: `[B, T, input_size]`, T >= 1.
            mask: `[B, T]`, bool, True = token.
            layout: The layout of the batch by `choose_layout`, for all layers; not read in a compiled graph.
            num_time_chunks: See `choose_layout`; read only in a compiled graph.
        """
        parameters = [self.forward_rnn(x)]
        if self.backward_rnn is not None:
            parameters.append(self.backward_rnn(x))
        if torch.compiler.is_compiling():
            return recurrence_operator(self.rnn_type, x, mask, parameters, num_time_chunks)
        return run_layer(self.rnn_type, x, parameters, layout)


class MaskedRecurrence(nn.Module):
    """Recurrent layers that read the tokens of each row as if there were no padding.

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
            raise ValueError(f"num_hidden_layers must be at least 1, got {num_layers}.")
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

    def forward(self, x: torch.Tensor, mask: torch.Tensor, num_time_chunks: int | None = None) -> tuple[torch.Tensor, ...]:
        """Run all layers.

        Compiled for inference or exported, each layer is one operator in the graph. Compiled for training, the recurrence
        runs between two graphs: torch's kernels keep what their gradient needs where no graph can hold it.

        Args:
            x: `[B, T, input_size]`; what stands at padding is not read.
            mask: `[B, T]`, bool, True = token, in any arrangement.
            num_time_chunks: Number of chunks into which time is cut, so that rows that have ended cost little; None takes what
                costs least, and on an accelerator 1, which needs no host sync. The results are the same up to rounding.

        Returns:
            The states of every layer, each `[B, T, H]`, 0 at padding. Each layer reads the returned states of the one below.

        Raises:
            ValueError: If `num_time_chunks` is below 1.
        """
        if num_time_chunks is not None and num_time_chunks < 1:
            raise ValueError(f"num_time_chunks must be at least 1, got {num_time_chunks}.")
        if x.shape[1] == 0:
            # Padding has no effect, but every parameter is used, as DistributedDataParallel requires.
            states = self(pad(x, (0, 0, 0, 1)), pad(mask, (0, 1)), num_time_chunks)
            return tuple(layer_states[:, :0] for layer_states in states)
        is_exporting = _KNOWS_EXPORT and torch.compiler.is_exporting()
        if torch.compiler.is_dynamo_compiling() and torch.is_grad_enabled() and not is_exporting:
            return self._run_between_graphs(x, mask, num_time_chunks)
        return self._run(x, mask, num_time_chunks)

    def _run(self, x: torch.Tensor, mask: torch.Tensor, num_time_chunks: int | None) -> tuple[torch.Tensor, ...]:
        layout = None
        if not torch.compiler.is_compiling():
            layout = choose_layout(self.rnn_type, mask, self.directions, self.width, num_time_chunks)
        states: tuple[torch.Tensor, ...] = ()
        for layer in self.layers:
            layer_input = self.dropout(states[-1]) if states else x
            states = (*states, layer(layer_input, mask, layout, num_time_chunks))
        return states

    @torch.compiler.disable(reason="the recurrence trains between two graphs; for fullgraph=True compile under torch.no_grad()")
    def _run_between_graphs(self, x, mask, num_time_chunks):
        return self._run(x, mask, num_time_chunks)

    def last_state(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Select the state of each direction after its last token: `[B, T, H]` -> `[B, H]`, 0 for a row without a token."""
        if mask.shape[1] == 0:
            return self.last_state(pad(states, (0, 0, 0, 1)), pad(mask, (0, 1)))
        batch_size, time = mask.shape
        rows = torch.arange(batch_size, device=mask.device)
        columns = torch.arange(time, device=mask.device)
        last_token = torch.where(mask, columns, 0).amax(dim=1)  # [B]
        state = states[rows, last_token]  # [B, H]
        if self.directions == 2:
            first_token = torch.where(mask, columns, time - 1).amin(dim=1)
            state = torch.cat([state[:, : self.width], states[rows, first_token][:, self.width :]], dim=-1)
        return state.masked_fill(~mask.any(dim=1, keepdim=True), 0)
