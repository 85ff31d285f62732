"""A trained classifier as an ONNX file that has been compared with it."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import PreTrainedModel

from hf_maskattn.data.tokenizers import load_tokenizer
from hf_maskattn.inference.predict import require_place
from hf_maskattn.loading import load_config, load_whole_model
from hf_maskattn.model.configuration_maskattn import MaskAttnConfig
from hf_maskattn.onnx.check import Agreement, ShapeCheck, agreement, check_onnx
from hf_maskattn.onnx.export import export_onnx
from hf_maskattn.onnx.runtime import OnnxSession, quantize_onnx
from hf_maskattn.tasks import TASKS, task_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OnnxReport:
    """What is known about a file that was written.

    Attributes:
        path: The file.
        size: Its bytes.
        checks: How far the file of float32 is from the model, for each shape.
        full_size: Bytes of the file of float32, where one of 8-bit integers took its place.
        int8_agreement: How the file of 8-bit integers compares with that of float32.
    """

    path: Path
    size: int
    checks: list[ShapeCheck]
    full_size: int | None = None
    int8_agreement: Agreement | None = None


def export(
    model_folder: str | Path, path: Path, *, int8_texts: Sequence[str] | None = None, overwrite: bool = False
) -> OnnxReport:
    """Write a classifier of sequences or tokens to an ONNX file and compare it with the model.

    The file computes in float32 with the implementation "eager" of attention, in whichever the model was trained: the
    weights and, up to rounding, the results are the same.

    Args:
        model_folder: Folder of the model, or its name on the Hub.
        path: The file to write. It appears when all is well; until then nothing is at its place, or what was there before.
        int8_texts: Texts for which to count equal predictions of a file of 8-bit integers, which is then written; None for
            a file of float32.
        overwrite: Whether to replace a file.

    Returns:
        The sizes and differences.

    Raises:
        ImportError: If onnx, onnxscript or onnxruntime is not installed.
        ValueError: If the model has another task, the file exists, or it does not give what the model gives.
        OSError: If there is no such model, or the file cannot be written.
    """
    require_place(path, overwrite)
    texts = None if int8_texts is None else [text for text in int8_texts if text.strip()]
    if texts == []:
        raise ValueError("there is no text to compare predictions of 8-bit integers on.")
    model = _load(model_folder)
    tokenizer = None if texts is None else load_tokenizer(model_folder)
    # The folder of the file, so that the last step is a rename, which leaves the whole file or none.
    with TemporaryDirectory(dir=path.parent, prefix=".onnx-") as folder:
        full = Path(folder) / "full.onnx"
        logger.info("exporting ...")
        export_onnx(model, full)
        checks = check_onnx(model, full)
        if texts is None:
            size = full.stat().st_size
            os.replace(full, path)
            return OnnxReport(path, size, checks)
        int8 = Path(folder) / "int8.onnx"
        logger.info("rounding to 8-bit integers ...")
        quantize_onnx(full, int8)
        logger.info(f"comparing predictions for {len(texts)} texts ...")
        found = agreement(OnnxSession(full), OnnxSession(int8), tokenizer, model.config, texts)
        full_size, size = full.stat().st_size, int8.stat().st_size
        os.replace(int8, path)
        return OnnxReport(path, size, checks, full_size, found)


def _load(model_folder: str | Path) -> PreTrainedModel:
    config = load_config(model_folder)
    if config.model_type != MaskAttnConfig.model_type:
        raise ValueError(
            f"{model_folder} is a {config.model_type!r} model, only {MaskAttnConfig.model_type!r} models are exported here."
        )
    task = task_of(config.architectures)
    if task is None or TASKS[task].onnx_pipeline is None:
        raise ValueError(
            f"{model_folder} was saved as {', '.join(config.architectures or []) or 'no class'}, which cannot be exported: "
            f"models for {' and '.join(name for name, known in TASKS.items() if known.onnx_pipeline)} can."
        )
    if config.attention_implementation != "eager":
        logger.info(f'The file computes as attention_implementation="eager", not "{config.attention_implementation}".')
    config.attention_implementation = "eager"
    return load_whole_model(TASKS[task].auto_class.load(), model_folder, config, dtype=torch.float32).eval()
