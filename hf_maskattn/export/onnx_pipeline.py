"""Pipelines of transformers over an ONNX file: their reading of texts and of logits, without the weights of torch."""

from pathlib import Path

import torch
from torch import nn
from transformers import (
    Pipeline,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    TextClassificationPipeline,
    TokenClassificationPipeline,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_maskattn.export.onnx_runtime import OnnxSession


class _OnnxClassifier(nn.Module):
    """What a pipeline asks of a model, answered by an ONNX file."""

    device = torch.device("cpu")

    def __init__(self, session: OnnxSession, config: PreTrainedConfig):
        super().__init__()
        self.session = session
        self.config = config

    def can_generate(self) -> bool:
        return False

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs) -> SequenceClassifierOutput:
        logits, _ = self.session.run(input_ids.numpy(), attention_mask.numpy())
        return SequenceClassifierOutput(logits=torch.from_numpy(logits))


class _AnyModel:
    def check_model_type(self, supported_models):
        """Accept a model that has none of the classes of transformers."""


class _OnnxTextClassification(_AnyModel, TextClassificationPipeline):
    pass


class _OnnxTokenClassification(_AnyModel, TokenClassificationPipeline):
    pass


_PIPELINES = {
    "text-classification": (_OnnxTextClassification, ["batch"]),
    "token-classification": (_OnnxTokenClassification, ["batch", "time"]),
}


def onnx_pipeline(task: str, path: Path, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> Pipeline:
    """Build the pipeline of a task over a file.

    Args:
        task: "text-classification" or "token-classification".
        path: The file that `export_onnx` wrote.
        config: The configuration of its model, with the names of the labels.
        tokenizer: The tokenizer of its model.

    Raises:
        ImportError: If onnxruntime is not installed.
        FileNotFoundError: If there is no such file.
        ValueError: If there is no ONNX file for the task, or this file was not written for the task and its labels.
    """
    if task not in _PIPELINES:
        raise ValueError(f"{task} does not run from an ONNX file; {' and '.join(_PIPELINES)} do.")
    pipeline_class, sizes = _PIPELINES[task]
    session = OnnxSession(path)
    found, expected = session.logits_shape, [*sizes, config.num_labels]
    if found != expected:
        raise ValueError(
            f"{path} has logits {found}, the model has {expected} for {task}: give the file that was exported from this model."
        )
    return pipeline_class(model=_OnnxClassifier(session, config), tokenizer=tokenizer, task=task, device=-1)
