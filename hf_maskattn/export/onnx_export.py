"""A classifier becomes one ONNX file: weights, mask logic and native recurrent nodes, for any batch size and time."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_maskattn.export.onnx_recurrence import OPSET, finish, translations

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
