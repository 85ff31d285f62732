"""Export of a classifier to one ONNX file with native LSTM or GRU nodes, for any batch size, time and mask."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_maskattn.inspection.contributions import split_context
from hf_maskattn.model.crf import OPERATOR_NAME as MAX_MARGINALS
from hf_maskattn.model.recurrent_kernel import OPERATOR_NAME as RECURRENCE
from hf_maskattn.model.remote_code import install_command
from hf_maskattn.onnx.runtime import MODEL_METADATA, describe_model

try:
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    from onnxscript import BOOL, FLOAT, graph, opset18, script
    from onnxscript.optimizer import optimize
except ImportError as error:
    raise ImportError(f"Export to ONNX needs onnxscript. Install it: {install_command('onnx')}") from error

OPSET = 18
op: Any = opset18  # its annotations do not include values of a graph

_GATES = {"lstm": [0, 3, 1, 2], "gru": [1, 0, 2]}  # i, f, g, o -> i, o, f, c; r, z, n -> z, r, h
_INT32, _INT64 = 6, 7  # onnx.TensorProto
_NO_LIMIT = 2**40


def custom_translation_table() -> dict[Callable, Callable]:
    """Return the argument of `torch.onnx.export` that translates the custom operators of the models."""
    translations: dict[str, Callable] = {RECURRENCE: _recurrence, MAX_MARGINALS: _max_marginals}
    return {_find_operator(name): translation for name, translation in translations.items()}


def _find_operator(qualified_name: str) -> Callable:
    namespace, name = qualified_name.split("::")
    return getattr(getattr(torch.ops, namespace), name).default


def fold_constants(model: Any) -> None:
    """Fold what depends on weights only, such as their order in ONNX, and remove metadata from an `onnx_ir.Model`, in place.

    Otherwise every inference would reorder the weights, and a file would name the folders of the machine that exported it.
    """
    optimize(model, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT)
    ClearMetadataAndDocStringPass()(model)


def _recurrence(x: Any, mask: Any, weights: Sequence[Any], rnn_type: str, num_time_chunks: int) -> Any:
    """Build the nodes of one layer. Arguments and result are those of the custom operator, as values of an ONNX graph.

    The node reads token `row * T + column` at a step that counts the tokens before it in its row. Padding follows in its
    order. One gather brings the tokens to the node, time first. Another one brings each output back to its column, from the
    position `(step * D + direction) * B + row` of the node's output.

    Source:
        ONNX operators LSTM (14) and GRU (14), with `sequence_lens` in both directions.
    """
    directions = [weights[start : start + 4] for start in range(0, len(weights), 4)]
    (_, width), (_, hidden) = weights[0].shape, weights[1].shape
    shape = op.Shape(mask)
    batch, time = op.Squeeze(op.Slice(shape, [0], [1])), op.Squeeze(op.Slice(shape, [1], [2]))
    rows, columns = op.Unsqueeze(op.Range(0, batch, 1), [1]), op.Range(0, time, 1)  # [B, 1], [T]
    is_token = op.Cast(mask, to=_INT64)
    lengths = op.ReduceSum(is_token, [1], keepdims=1)  # [B, 1]
    count = op.CumSum(is_token, 1)  # [B, T]
    step = op.Where(mask, count - 1, lengths + columns - count)  # [B, T]
    token = rows * time + columns  # [B, T]
    source = op.Transpose(op.ScatterElements(token, step, token, axis=1), perm=[1, 0])  # [T, B], the token of each step
    mask_3d = op.Unsqueeze(mask, [2])  # [B, T, 1]
    tokens = op.Reshape(op.Where(mask_3d, x, 0.0), [-1, width])
    # onnxruntime needs at least one step per row. The output of a row without a token is zeroed like all padding.
    steps = op.Cast(op.Squeeze(op.Max(lengths, 1), [1]), to=_INT32)
    node, settings = (op.LSTM, {}) if rnn_type == "lstm" else (op.GRU, {"linear_before_reset": 1})
    states, *_ = node(  # [T, D, B, H]
        op.Gather(tokens, source),
        _stack(rnn_type, [[weights[0]] for weights in directions]),
        _stack(rnn_type, [[weights[1]] for weights in directions]),
        _stack(rnn_type, [[weights[2], weights[3]] for weights in directions]),
        steps,
        hidden_size=hidden,
        direction="bidirectional" if len(directions) == 2 else "forward",
        **settings,
    )
    offset = op.Constant(value_ints=[*range(len(directions))]) * batch  # [D]
    position = op.Unsqueeze(step * (batch * len(directions)) + rows, [2]) + offset  # [B, T, D]
    output = op.Gather(op.Reshape(states, [-1, hidden]), position)  # [B, T, D, H]
    return op.Where(mask_3d, op.Reshape(output, [0, 0, len(directions) * hidden]), 0.0)


def _stack(rnn_type: str, weights: Sequence[Sequence[Any]]) -> Any:
    """Reorder the gates of torch's weights for ONNX and stack the directions: `[D, ...]`."""
    stacked = []
    for tensors in weights:
        ordered = []
        for weight in tensors:
            gates = len(_GATES[rnn_type])
            split = op.Reshape(weight, [gates, -1, *weight.shape[1:]])
            ordered.append(op.Reshape(op.Gather(split, _GATES[rnn_type]), [-1, *weight.shape[1:]]))
        stacked.append(op.Unsqueeze(op.Concat(*ordered, axis=0), [0]))
    return op.Concat(*stacked, axis=0)


@script(default_opset=op)
def _max_marginals(
    emissions: FLOAT[...],  # type: ignore[misc, type-arg]
    mask: BOOL[...],  # type: ignore[misc, type-arg]
    transitions: FLOAT[...],  # type: ignore[misc, type-arg]
    start: FLOAT[...],  # type: ignore[misc, type-arg]
    end: FLOAT[...],  # type: ignore[misc, type-arg]
) -> FLOAT[...]:  # type: ignore[misc, type-arg]
    """Build the max-marginals of a CRF by two scans over the columns of a batch.

    Arguments and result are those of the custom operator, as values of an ONNX graph. At a column that is padding for a row,
    the state of the row is kept.
    """
    mask_3d = op.Unsqueeze(mask, [2])  # [B, T, 1]
    scores = op.Where(mask_3d, emissions, 0.0)
    arrivals = op.Transpose(transitions, perm=[1, 0])
    shape = op.Gather(op.Shape(emissions), [0, 2])  # [B, K]
    first = op.Expand(start, shape)
    last = op.Expand(end, shape)

    @graph()
    def step_back(after, score, is_token):
        best = op.ReduceMax(op.Unsqueeze(score + after, [1]) + transitions, [2], keepdims=0)
        return op.Where(is_token, best, after), op.Identity(after)

    _, after = op.Scan(
        last,
        scores,
        mask_3d,
        body=step_back,
        num_scan_inputs=2,
        scan_input_axes=[1, 1],
        scan_input_directions=[1, 1],
        scan_output_axes=[1],
        scan_output_directions=[1],
    )  # [B, T, K], best score of what follows each token

    @graph()
    def step(before, from_path, score, score_after, is_token):
        label = op.ArgMax(from_path + score + score_after, axis=1, keepdims=0)
        best = op.ReduceMax(op.Unsqueeze(before + score, [1]) + arrivals, [2], keepdims=0)
        next_before = op.Where(is_token, best, before)
        next_from_path = op.Where(is_token, op.Gather(transitions, label), from_path)
        return next_before, next_from_path, op.Identity(before), op.Unsqueeze(label, [1])

    _, _, before, path = op.Scan(
        first,
        first,
        scores,
        after,
        mask_3d,
        body=step,
        num_scan_inputs=3,
        scan_input_axes=[1, 1, 1],
        scan_output_axes=[1, 1],
    )  # [B, T, K], best score of what precedes each token; [B, T, 1], the best path
    values = before + scores + after
    best = op.ReduceMax(values, [2], keepdims=1)  # [B, T, 1]
    raised = best + op.Max(op.Abs(best), 1.0) * 1.1920928955078125e-07  # the epsilon of float32
    is_best = op.ArgMax(values, axis=2, keepdims=1) == path
    values = op.ScatterElements(values, path, op.Where(is_best, best, raised), axis=2)
    return op.Where(mask_3d, values, 0.0)


INPUTS = ("input_ids", "attention_mask")
OUTPUTS = ("logits", "attentions")
CONTRIBUTIONS = "contributions"


def output_names(model: PreTrainedModel, contributions: bool = False) -> list[str]:
    """Return the outputs of the file of a model. One that classifies sequences and their tokens has a further one."""
    further = ["sequence_logits"] if model.config.sequence_label_names else [CONTRIBUTIONS] if contributions else []
    return [*OUTPUTS, *further]


class _Classifier(nn.Module):
    """Computes the outputs of the file."""

    def __init__(self, model: PreTrainedModel, contributions: bool):
        super().__init__()
        self.model = model
        self.contributions = contributions

    def forward(self, input_ids, attention_mask):
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        outputs = self.model(**inputs, output_attentions=True, output_hidden_states=self.contributions)
        values = {**outputs, "attentions": outputs.attentions[0]}
        if self.contributions:
            values[CONTRIBUTIONS] = split_context(self.model, outputs.hidden_states[-1], outputs.attentions[0])
        return tuple(values[name] for name in output_names(self.model, self.contributions))


def write_onnx(model: PreTrainedModel, path: Path, *, contributions: bool = False) -> None:
    """Export a classifier of sequences, tokens or both to an ONNX file.

    The inputs of the file are `input_ids` and `attention_mask`, `[B, T]`, int64, with any B >= 1, T >= 1 and any mask of 0 and
    1. Its outputs are `logits`, `[B, num_labels]` or `[B, T, num_labels]`, `attentions`, `[B, heads, 1, T]`, and, for both
    sequences and tokens, `sequence_logits`, `[B, num_sequence_labels]`. On request a classifier of sequences has
    `contributions`, `[B, T, num_labels]`, which with the bias of the classifier add up to the logits. Its metadata say what the
    ids mean (see `describe_model`).

    Args:
        model: The model, in float32 on the CPU, in evaluation mode, with `attention_implementation="eager"`. The others
            read values on the host or tile by sizes, which a graph for any batch size cannot.
        path: The file to write, weights included.
        contributions: Whether to write the contributions of the tokens as well. The model must be a sequence classifier.

    Raises:
        ValueError: If the model has another `attention_implementation`, or no contributions.
        torch._dynamo.exc.UserError: If the model depends on a batch size or a time.
    """
    implementation = model.config.attention_implementation
    if implementation != "eager":
        raise ValueError(
            f'attention_implementation must be "eager" for the export, got {implementation!r}. Load the model with '
            'attention_implementation="eager": the weights are the same.'
        )
    if contributions and (hasattr(model, "token_classifier") or not hasattr(model, "classifier")):
        raise ValueError(f"contributions must be false for {type(model).__name__}, which does not classify sequences only.")
    ids = torch.zeros(2, 3, dtype=torch.int64)
    mask = torch.tensor([[1, 1, 1], [0, 1, 0]])
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}
    with _silence_exporters(), torch.no_grad():
        # Given a module, torch.onnx silently fixes sizes that it cannot keep dynamic. torch.export raises.
        classifier = _Classifier(model, contributions)
        program = torch.export.export(classifier, (ids, mask), dynamic_shapes=(sizes, sizes), strict=False)
        exported: Any = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            dynamic_shapes=(sizes, sizes),
            opset_version=OPSET,
            input_names=INPUTS,
            output_names=output_names(model, contributions),
            custom_translation_table=custom_translation_table(),
        )
        fold_constants(exported.model)
        exported.model.metadata_props[MODEL_METADATA] = describe_model(model.config)
        exported.save(path, external_data=False)


@contextmanager
def _silence_exporters() -> Iterator[None]:
    """Silence warnings and logs of torch and onnxscript that are meant for their developers."""
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


def export_onnx(model: PreTrainedModel, path: Path) -> None:
    """Deprecated name of `write_onnx`."""
    warnings.warn("hf_maskattn.onnx.export.export_onnx is deprecated. Use write_onnx.", FutureWarning, stacklevel=2)
    write_onnx(model, path)
