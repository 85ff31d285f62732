"""Inference and quantization of the ONNX files of classifiers. Only this module needs onnxruntime."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from transformers import (
    Pipeline,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    TextClassificationPipeline,
    TokenClassificationPipeline,
)

from hf_maskattn.loading import to_one_line
from hf_maskattn.model.modeling_joint import JointClassifierOutput
from hf_maskattn.model.remote_code import install_command
from hf_maskattn.tasks import TASKS

MODEL_METADATA = "hf_maskattn.model"
"""Key of `describe_model` in the metadata of a file."""


def describe_model(config: PreTrainedConfig) -> str:
    """Describe, as JSON, what the ids of inputs and outputs mean: the size of the vocabulary, and the names of the labels."""
    labels = [config.id2label[number] for number in range(config.num_labels)]
    return json.dumps({"vocab_size": config.vocab_size, "labels": labels, "sequence_labels": config.sequence_label_names})


class OnnxSession:
    """An ONNX file from `write_onnx`, run on the CPU with as many threads as torch has.

    Args:
        path: The file.

    Attributes:
        shapes: The shape of each output, with names for dynamic sizes.
        has_contributions: Whether the file has the output `contributions`.
        model_description: What `describe_model` wrote, or None in files of earlier versions.

    Raises:
        ImportError: If onnxruntime is not installed.
        FileNotFoundError: If there is no such file.
        ValueError: If it is not valid, or has other inputs and outputs.
    """

    def __init__(self, path: str | Path):
        self._path = path = Path(path)
        onnxruntime = _onnxruntime()
        if not path.is_file():
            raise FileNotFoundError(f"The file {path} does not exist. Create it with `hf-maskattn export MODEL --onnx {path}`.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # errors are raised
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ValueError(f"{path} could not be loaded by onnxruntime: {error}") from error
        self._check_names(path, self._session.get_inputs(), ["attention_mask", "input_ids"])
        self.shapes: dict[str, list[int | str]] = {value.name: value.shape for value in self._session.get_outputs()}
        self.has_contributions = "contributions" in self.shapes
        further = [name for name in ("sequence_logits",) if name in self.shapes]
        expected = ["attentions", *(["contributions"] if self.has_contributions else []), "logits", *further]
        self._check_names(path, self._session.get_outputs(), expected)
        self._outputs = ["logits", "attentions", *further]
        self.model_description = self._session.get_modelmeta().custom_metadata_map.get(MODEL_METADATA)

    def run(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the file.

        Args:
            input_ids: `[B, T]`, int64, B >= 1. Values at padding positions are not read.
            attention_mask: `[B, T]`, int64, 1 = token, 0 = padding, any mask.

        Returns:
            Logits `[B, num_labels]` or `[B, T, num_labels]`, attention weights `[B, heads, 1, T]`, and, for both sequences and
            tokens, logits of sequences `[B, num_sequence_labels]`, float32.

        Raises:
            ValueError: If there is no row, or an id is not in the vocabulary.
        """
        time = input_ids.shape[1]
        logits, weights, *further = self._run(self._outputs, input_ids, attention_mask)
        return logits[:, :time] if logits.ndim == 3 else logits, weights[..., :time], *further

    def compute_contributions(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        """Compute the contributions of the tokens, `[B, T, num_labels]`, of a file that has them; arguments as for `run`."""
        return self._run(["contributions"], input_ids, attention_mask)[0][:, : input_ids.shape[1]]

    def _run(self, names: list[str], input_ids: np.ndarray, attention_mask: np.ndarray) -> list[np.ndarray]:
        if len(input_ids) == 0:
            raise ValueError("`input_ids` must have at least one row, got none.")
        if input_ids.shape[1] == 0:
            # ONNX has no recurrence of zero steps. A padding position changes nothing.
            input_ids = attention_mask = np.zeros((len(input_ids), 1), dtype=np.int64)
        try:
            return self._session.run(names, {"input_ids": input_ids, "attention_mask": attention_mask})
        except Exception as error:
            raise ValueError(
                f"{self._path} could not be run for {' x '.join(map(str, input_ids.shape))} ids of at most {input_ids.max()}: "
                f"{to_one_line(error)}. Use the file that was exported from this model."
            ) from error

    @staticmethod
    def _check_names(path, found, expected):
        names = sorted(value.name for value in found)
        if names != expected:
            raise ValueError(
                f"{path} must have {', '.join(expected)}, got {', '.join(names)}. Use a file that was written by "
                "`hf-maskattn export`."
            )


def quantize_onnx(source: Path, target: Path) -> None:
    """Write a file from `write_onnx` with the weights of embeddings, matrix products and LSTMs as 8-bit integers.

    Numerics:
        Activations are rounded by the range of the batch, so that a row depends slightly on the rest of its batch.
        onnxruntime has no 8-bit GRU: the recurrent weights of a GRU stay in float32.

    Raises:
        ImportError: If onnxruntime is not installed.
    """
    _onnxruntime()
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryDirectory() as folder, _preserve_root_logger():
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        # With all 8 bits, sums of products overflow silently on a CPU without VNNI: errors were seven times as large.
        quantize_dynamic(prepared, target, op_types_to_quantize=["Gather", "MatMul", "LSTM"], reduce_range=True)


@contextmanager
def _preserve_root_logger() -> Iterator[None]:
    """Keep onnxruntime, which calls `logging.info`, from installing a root handler that would show all messages."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"ONNX files need onnxruntime. Install it: {install_command('onnx')}") from error
    return onnxruntime


class _OnnxClassifier(nn.Module):
    """An ONNX file with the interface that pipelines need of a model."""

    device = torch.device("cpu")

    def __init__(self, session: OnnxSession, config: PreTrainedConfig):
        super().__init__()
        self.session = session
        self.config = config

    def can_generate(self) -> bool:
        return False

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs) -> JointClassifierOutput:
        logits, _, *further = self.session.run(input_ids.numpy(), attention_mask.numpy())
        sequence_logits = torch.from_numpy(further[0]) if further else None
        return JointClassifierOutput(logits=torch.from_numpy(logits), sequence_logits=sequence_logits)


class _AnyModel:
    def check_model_type(self, supported_models):
        """Accept a model that is not a class of transformers."""


class OnnxTextClassificationPipeline(_AnyModel, TextClassificationPipeline):
    """Text classification with an ONNX file."""

    output_axes: ClassVar[dict[str, tuple[str, ...]]] = {"logits": ("batch",)}


class OnnxTokenClassificationPipeline(_AnyModel, TokenClassificationPipeline):
    """Token classification with an ONNX file."""

    output_axes: ClassVar[dict[str, tuple[str, ...]]] = {"logits": ("batch", "time")}


class JointClassificationPipeline(_AnyModel, TextClassificationPipeline):
    """Classification of texts by a model that classifies their tokens too, of torch or an ONNX file; `forward` returns both."""

    output_axes: ClassVar[dict[str, tuple[str, ...]]] = {"logits": ("batch", "time"), "sequence_logits": ("batch",)}

    def postprocess(self, model_outputs, top_k=1, **settings):
        """Return the most probable labels of a text with their probabilities; all labels for None."""
        names = self.model.config.sequence_label_names
        scores = model_outputs["sequence_logits"][0].float().softmax(dim=-1)
        best = scores.topk(len(names) if top_k is None else min(top_k, len(names)))
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        return [{"label": names[label], "score": score} for score, label in pairs]


def onnx_pipeline(task: str, path: str | Path, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> Pipeline:
    """Build the pipeline of a task over a file.

    Args:
        task: "text-classification", "token-classification" or "joint-classification".
        path: The file from `write_onnx`.
        config: The configuration of its model.
        tokenizer: The tokenizer of its model.

    Raises:
        ImportError: If onnxruntime is not installed.
        FileNotFoundError: If there is no such file.
        ValueError: If the task cannot be run from an ONNX file, or the file has another task or other labels.
    """
    pipeline_path = TASKS[task].onnx_pipeline
    if pipeline_path is None:
        names = [name for name, known in TASKS.items() if known.onnx_pipeline]
        raise ValueError(f"The task of an ONNX file must be {' or '.join(names)}, got {task}.")
    pipeline_class = pipeline_path.load()
    session = OnnxSession(path)
    sizes = {"logits": config.num_labels, "sequence_logits": len(config.sequence_label_names or [])}
    for name, axes in pipeline_class.output_axes.items():
        actual, expected = session.shapes.get(name), [*axes, sizes[name]]
        if actual != expected:
            raise ValueError(
                f"The {name} of {path} must have shape {expected} for {task}, got {actual}. Use the file that was exported "
                "from this model."
            )
    description = getattr(session, "model_description", None)  # another class may run the file
    if description not in (None, describe_model(config)):
        raise ValueError(
            f"{path} must have the vocabulary and the labels of this model, got a file of another model. Use the file that was "
            "exported from this model."
        )
    return pipeline_class(model=_OnnxClassifier(session, config), tokenizer=tokenizer, task=task, device=-1)
