"""Export of a trained classifier to an ONNX file that is compared with the model."""

import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PreTrainedModel

from hf_maskattn.data.tokenizers import load_tokenizer
from hf_maskattn.inference.predict import check_output_path
from hf_maskattn.loading import load_config, load_verified_model
from hf_maskattn.model.configuration_maskattn import MaskAttnConfig
from hf_maskattn.onnx.check import Agreement, ShapeCheck, check_onnx, compare_predictions
from hf_maskattn.onnx.export import write_onnx
from hf_maskattn.onnx.runtime import OnnxSession, quantize_onnx
from hf_maskattn.tasks import TASKS, task_of

logger = logging.getLogger(__name__)

_TASKS = tuple(name for name, task in TASKS.items() if task.onnx_pipeline)


@dataclass(frozen=True)
class OnnxReport:
    """An exported file and its comparison with the model.

    Attributes:
        path: The file.
        size: Its bytes.
        checks: Differences of the float32 file to the model, for each batch shape.
        full_size: Bytes of the float32 file, if the file has 8-bit integers.
        int8_agreement: Comparison of the file of 8-bit integers with the float32 file.
    """

    path: Path
    size: int
    checks: list[ShapeCheck]
    full_size: int | None = None
    int8_agreement: Agreement | None = None


def export_onnx(
    model_folder: str | Path,
    path: str | Path,
    *,
    contributions: bool = False,
    int8_texts: Sequence[str] | None = None,
    overwrite: bool = False,
) -> OnnxReport:
    """Export a classifier of sequences or tokens to an ONNX file, and compare the file with the model.

    The file computes in float32 with `attention_implementation="eager"`, whichever the model was trained with. The weights are
    the same, and so are the results up to rounding.

    Args:
        model_folder: Folder of the model, or its name on the Hub.
        path: The file to write. It is replaced only after the comparison has passed.
        contributions: Whether the file has the contributions of the tokens to the logits as a further output; for
            classifiers of texts, in float32.
        int8_texts: Texts on which to compare the predictions of a file of 8-bit integers, which is written then. None writes a
            file of float32.
        overwrite: Whether to replace a file.

    Returns:
        The sizes and differences.

    Raises:
        ImportError: If onnx, onnxscript or onnxruntime is not installed.
        ValueError: If the model has another task, the file exists, or its outputs differ from those of the model.
        OSError: If there is no such model, or the file cannot be written.
    """
    path = Path(path)
    check_output_path(path, overwrite)
    if contributions and int8_texts is not None:
        raise ValueError(
            "contributions must be false with 8-bit integers, whose rounded contributions do not add up to the logits. Export "
            "a file of float32."
        )
    texts = None if int8_texts is None else [text for text in int8_texts if text.strip()]
    if texts == []:
        raise ValueError("The texts to compare predictions of 8-bit integers on must not be empty.")
    model = _load_classifier(model_folder, ("text-classification",) if contributions else _TASKS)
    tokenizer = None if texts is None else load_tokenizer(model_folder)
    # Written in the same folder and renamed, so that there is never half a file.
    with TemporaryDirectory(dir=path.parent, prefix=".onnx-") as folder:
        full = Path(folder) / "full.onnx"
        logger.info("Exporting ...")
        write_onnx(model, full, contributions=contributions)
        checks = check_onnx(model, full)
        if texts is None:
            size = full.stat().st_size
            os.replace(full, path)
            return OnnxReport(path, size, checks)
        int8 = Path(folder) / "int8.onnx"
        logger.info("Rounding to 8-bit integers ...")
        quantize_onnx(full, int8)
        logger.info(f"Comparing predictions for {len(texts)} texts ...")
        agreement = compare_predictions(OnnxSession(full), OnnxSession(int8), tokenizer, model.config, texts)
        full_size, size = full.stat().st_size, int8.stat().st_size
        os.replace(int8, path)
        return OnnxReport(path, size, checks, full_size, agreement)


def _load_classifier(model_folder: str | Path, tasks: Sequence[str]) -> PreTrainedModel:
    config = load_config(model_folder)
    if config.model_type != MaskAttnConfig.model_type:
        raise ValueError(
            f"{model_folder} must be a {MaskAttnConfig.model_type!r} model, got {config.model_type!r}. Only classifiers of "
            "texts and tokens can be exported."
        )
    task = task_of(config.architectures)
    if task is None or task not in tasks:
        raise ValueError(
            f"{model_folder} must be a model for {' or '.join(tasks)}, got "
            f"{', '.join(config.architectures or []) or 'no class'}."
        )
    if config.attention_implementation != "eager":
        logger.info(f'The file computes with attention_implementation="eager" instead of "{config.attention_implementation}".')
    config.attention_implementation = "eager"
    return load_verified_model(TASKS[task].auto_class.load(), model_folder, config, dtype=torch.float32).eval()


def export(*args: Any, **kwargs: Any) -> OnnxReport:
    """Deprecated name of `export_onnx`."""
    warnings.warn("hf_maskattn.inference.export.export is deprecated. Use export_onnx.", FutureWarning, stacklevel=2)
    return export_onnx(*args, **kwargs)
