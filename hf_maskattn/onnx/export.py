"""A classifier becomes one ONNX file: weights, mask logic and native recurrent nodes, for any batch size and time."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_maskattn.model.recurrent_kernel import OPERATOR_NAME
from hf_maskattn.model.remote_code import install_command

try:
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    from onnxscript import opset18
    from onnxscript.optimizer import optimize
except ImportError as error:
    raise ImportError(f"ONNX files are written with onnxscript: {install_command('onnx')}") from error

OPSET = 18
op: Any = opset18  # whose annotations know no value of a graph

_GATES = {"lstm": [0, 3, 1, 2], "gru": [1, 0, 2]}  # i, f, g, o -> i, o, f, c; r, z, n -> z, r, h
_INT32, _INT64 = 6, 7  # onnx.TensorProto
_NO_LIMIT = 2**40


def translations() -> dict[Callable, Callable]:
    """Tell `torch.onnx.export` what stands for the operator of the recurrence: its `custom_translation_table`."""
    namespace, name = OPERATOR_NAME.split("::")
    return {getattr(getattr(torch.ops, namespace), name).default: _recurrence}


def finish(model: Any) -> None:
    """Compute in place what depends on weights alone, such as their order in ONNX, and forget how the graph was made.

    Without that each run would order the weights anew, and a file would tell the folders of the machine it was made on.

    Args:
        model: The `onnx_ir.Model` of a `torch.onnx.ONNXProgram`.
    """
    optimize(model, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT)
    ClearMetadataAndDocStringPass()(model)


def _recurrence(x: Any, mask: Any, weights: Sequence[Any], rnn_type: str, num_time_chunks: int) -> Any:
    """Build the nodes of one layer; arguments and result are those of the operator, as values of an ONNX graph.

    Tokens and cells are numbered: token `row * T + column` is read by the node in its row at a step that counts the real
    tokens before it, and pads follow in their order. So one gather brings tokens to the node, time first, and another
    brings each back to its column from the cells `(step * D + direction) * B + row`.

    Source:
        ONNX operators LSTM (14) and GRU (14), which read `sequence_lens` steps of a row in both directions.
    """
    directions = [weights[start : start + 4] for start in range(0, len(weights), 4)]
    (_, width), (_, hidden) = weights[0].shape, weights[1].shape
    shape = op.Shape(mask)
    batch, time = op.Squeeze(op.Slice(shape, [0], [1])), op.Squeeze(op.Slice(shape, [1], [2]))
    rows, columns = op.Unsqueeze(op.Range(0, batch, 1), [1]), op.Range(0, time, 1)  # [B, 1], [T]
    real = op.Cast(mask, to=_INT64)
    lengths = op.ReduceSum(real, [1], keepdims=1)  # [B, 1]
    seen = op.CumSum(real, 1)  # [B, T]
    step = op.Where(mask, seen - 1, lengths + columns - seen)  # [B, T]
    token = rows * time + columns  # [B, T]
    source = op.Transpose(op.ScatterElements(token, step, token, axis=1), perm=[1, 0])  # [T, B], the token of each step
    each_real = op.Unsqueeze(mask, [2])
    tokens = op.Reshape(op.Where(each_real, x, 0.0), [-1, width])
    # A row without a token is read for one step, as onnxruntime wants, and zeroed like every pad.
    steps = op.Cast(op.Squeeze(op.Max(lengths, 1), [1]), to=_INT32)
    node, settings = (op.LSTM, {}) if rnn_type == "lstm" else (op.GRU, {"linear_before_reset": 1})
    states, *_ = node(  # [T, D, B, H]
        op.Gather(tokens, source),
        _stack(rnn_type, [[own[0]] for own in directions]),
        _stack(rnn_type, [[own[1]] for own in directions]),
        _stack(rnn_type, [[own[2], own[3]] for own in directions]),
        steps,
        hidden_size=hidden,
        direction="bidirectional" if len(directions) == 2 else "forward",
        **settings,
    )
    place = op.Constant(value_ints=[*range(len(directions))]) * batch  # [D]
    target = op.Unsqueeze(step * (batch * len(directions)) + rows, [2]) + place  # [B, T, D], the cell of each token
    back = op.Gather(op.Reshape(states, [-1, hidden]), target)  # [B, T, D, H]
    return op.Where(each_real, op.Reshape(back, [0, 0, len(directions) * hidden]), 0.0)


def _stack(rnn_type: str, weights: Sequence[Sequence[Any]]) -> Any:
    """Bring torch's weights of each direction to the order of gates in ONNX, one behind the other: `[D, ...]`."""
    stacked = []
    for own in weights:
        ordered = []
        for weight in own:
            gates = len(_GATES[rnn_type])
            split = op.Reshape(weight, [gates, -1, *weight.shape[1:]])
            ordered.append(op.Reshape(op.Gather(split, _GATES[rnn_type]), [-1, *weight.shape[1:]]))
        stacked.append(op.Unsqueeze(op.Concat(*ordered, axis=0), [0]))
    return op.Concat(*stacked, axis=0)


INPUTS = ("input_ids", "attention_mask")
OUTPUTS = ("logits", "attentions")


class _Classifier(nn.Module):
    """What the file computes."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, output_attentions=True)
        return outputs.logits, outputs.attentions[0]


def export_onnx(model: PreTrainedModel, path: Path) -> None:
    """Write a classifier of sequences or tokens to an ONNX file.

    The inputs of the file are `input_ids` and `attention_mask`, `[B, T]`, int64, with any B >= 1, T >= 1 and arrangement of
    0 and 1; its outputs are `logits`, `[B, num_labels]` or `[B, T, num_labels]`, and `attentions`, `[B, heads, 1, T]`.

    Args:
        model: The model, in float32 on the CPU, in evaluation mode, with `attention_implementation="eager"`: the others
            read values on the host or tile by sizes, which a graph for any batch cannot.
        path: The file to write, with the weights inside.

    Raises:
        ValueError: If the model has another implementation of attention.
        torch._dynamo.exc.UserError: If the model depends on a batch size or a time.
    """
    implementation = model.config.attention_implementation
    if implementation != "eager":
        raise ValueError(
            f"attention_implementation={implementation!r} cannot be exported: load the model with "
            'attention_implementation="eager", the weights are the same.'
        )
    ids = torch.zeros(2, 3, dtype=torch.int64)
    mask = torch.tensor([[1, 1, 1], [0, 1, 0]])
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}
    with _quiet(), torch.no_grad():
        # Given a module, torch.onnx closes without a word the sizes that it cannot leave open; torch.export raises.
        program = torch.export.export(_Classifier(model), (ids, mask), dynamic_shapes=(sizes, sizes), strict=False)
        exported: Any = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            dynamic_shapes=(sizes, sizes),
            opset_version=OPSET,
            input_names=INPUTS,
            output_names=OUTPUTS,
            custom_translation_table=translations(),
        )
        finish(exported.model)
        exported.save(path, external_data=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the user what torch and onnxscript tell their developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
