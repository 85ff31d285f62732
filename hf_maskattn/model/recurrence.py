"""A stack of recurrent layers for which padding does not exist, without PackedSequence."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import pad
from transformers.modeling_layers import GradientCheckpointingLayer

from .layout import FrontLayout, bring_back, bring_to_front, front_layout, reverse
from .recurrent_kernel import run_recurrence

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}


class RecurrenceOutput(NamedTuple):
    """What a recurrence returns.

    Attributes:
        output: `[B, T, H]`, the states of the last layer, 0 at pads.
        last_state: `[B, H]`, the state of each direction after its last real token, 0 for a row without one.
        layer_outputs: The states of every layer, each `[B, T, H]`, 0 at pads; empty unless asked for.
    """

    output: torch.Tensor
    last_state: torch.Tensor
    layer_outputs: tuple[torch.Tensor, ...]


class RecurrentLayer(GradientCheckpointingLayer):
    """One recurrent layer, in one direction or both, over a batch in front layout.

    Both directions are torch's own modules with torch's own parameters; the backward one reads each row reversed within
    its length.

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
        if rnn_type not in CELLS:
            raise ValueError(f"rnn_type={rnn_type!r} is unknown; choose from {[*CELLS]}.")
        if bidirectional and output_size % 2:
            raise ValueError(
                f"hidden_size={output_size} is odd, but each direction of a bidirectional layer gives half of it: "
                f"use {output_size + 1}, or bidirectional=False."
            )
        width = output_size // 2 if bidirectional else output_size
        self.forward_rnn = CELLS[rnn_type](input_size, width, batch_first=True)
        self.backward_rnn = CELLS[rnn_type](input_size, width, batch_first=True) if bidirectional else None

    def forward(self, x: torch.Tensor, layout: FrontLayout) -> torch.Tensor:
        """Run the layer: `[B, L, input_size]` -> `[B, L, H]`, both in front layout."""
        output = run_recurrence(self.forward_rnn, x)
        if self.backward_rnn is None:
            return output
        backward_output = reverse(run_recurrence(self.backward_rnn, reverse(x, layout)), layout)
        return torch.cat([output, backward_output], dim=-1)


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
        self.hidden_size = hidden_size
        self.bidirectional = bidirectional
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

    def forward(self, x: torch.Tensor, mask: torch.Tensor, return_layer_outputs: bool = False) -> RecurrenceOutput:
        """Run all layers.

        Args:
            x: `[B, T, input_size]`; what stands at pads is not read.
            mask: `[B, T]`, bool, True = real, in any arrangement.
            return_layer_outputs: Whether to return the states of every layer.
        """
        if x.shape[1] == 0:
            # A pad changes nothing, and with it every parameter takes part, as it must under DistributedDataParallel.
            output, last_state, layer_outputs = self(pad(x, (0, 0, 0, 1)), pad(mask, (0, 1)), return_layer_outputs)
            return RecurrenceOutput(output[:, :0], last_state, tuple(states[:, :0] for states in layer_outputs))
        layout = front_layout(mask)
        hidden = bring_to_front(x, layout)  # [B, L, input_size]
        layer_outputs = ()
        for index, layer in enumerate(self.layers):
            hidden = layer(self.dropout(hidden) if index else hidden, layout)  # [B, L, H]
            if return_layer_outputs:
                layer_outputs = (*layer_outputs, bring_back(hidden, layout))
        output = layer_outputs[-1] if layer_outputs else bring_back(hidden, layout)  # [B, T, H]
        return RecurrenceOutput(output, self._last_state(hidden, layout), layer_outputs)

    def _last_state(self, hidden: torch.Tensor, layout: FrontLayout) -> torch.Tensor:
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        last = hidden[rows, (layout.lengths - 1).clamp(min=0)]  # [B, H]
        if self.bidirectional:
            width = self.hidden_size // 2
            last = torch.cat([last[:, :width], hidden[:, 0, width:]], dim=-1)
        return last.masked_fill((layout.lengths == 0)[:, None], 0)
