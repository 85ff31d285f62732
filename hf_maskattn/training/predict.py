"""What a model says about texts, by the pipeline of its own task, run by torch or from an ONNX file."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import Pipeline, PreTrainedConfig, pipeline

from hf_maskattn.data.tag_encoding import tags_of_words
from hf_maskattn.data.tokenizer_loading import load_tokenizer
from hf_maskattn.evaluation.spans import are_span_tags
from hf_maskattn.export.onnx_pipeline import onnx_pipeline
from hf_maskattn.export.tasks import TASKS, task_of
from hf_maskattn.inspection.alignment_maps import AlignmentMap
from hf_maskattn.inspection.plots import draw_alignments, require_picture
from hf_maskattn.loading.model_loading import load_config, load_whole_model
from hf_maskattn.training.model_building import AUTO_CLASSES
from hf_maskattn.training.output_file import require_place
from hf_maskattn.training.text_generation import write_texts

_TEXT_TO_TEXT = "text2text-generation"


def predict(
    model_folder: str | Path,
    texts: Sequence[str],
    *,
    batch_size: int = 32,
    onnx_file: Path | None = None,
    alignment_file: Path | None = None,
    overwrite: bool = False,
) -> Iterator[dict[str, Any]]:
    """Predict for texts with the pipeline that the class of a model asks for, or have it write texts.

    Args:
        model_folder: Folder of the model, or its name on the Hub.
        texts: The texts.
        batch_size: Number of texts that go through the model together.
        onnx_file: File that was exported from the model, to be run by onnxruntime in place of its weights.
        alignment_file: Picture to draw, when all is predicted, of how what a model wrote is aligned with the texts.
        overwrite: Whether to replace that picture.

    Yields:
        For each text, in order, `{"text": ..., "predictions": [...]}`. A prediction is what the pipeline gives: label and
        score of a text (of each label, where there may be several), of each span, of each word where tags mark no spans, or of
        each filling of the mask; or
        `{"generated_text": ...}`, as many as `num_return_sequences` of the model's `generation_config`. A text without a
        visible character has no predictions.

    Raises:
        ValueError: If the model has no task, the batch size is below 1, a text to fill has no mask token, the ONNX file is
            not one of this model, or there cannot be a picture.
        OSError: If there is no such model, file or folder.
        ImportError: If onnxruntime or matplotlib is needed and not installed.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1.")
    config = load_config(model_folder)
    task = task_of(config.architectures)
    if task is None:
        raise ValueError(
            f"{model_folder} was saved as {', '.join(config.architectures or []) or 'no class'}, which predicts nothing: train "
            f"a model with one of the tasks {', '.join(TASKS.values())}."
        )
    if alignment_file is not None:
        if task != _TEXT_TO_TEXT:
            raise ValueError(
                f"{model_folder} is a model for {task}, which has no attention from an output to its source: only what models "
                f"for {_TEXT_TO_TEXT} write can be aligned."
            )
        require_place(alignment_file, overwrite)
        require_picture(alignment_file)
    filled = [text for text in texts if text.strip()]
    alignments: list[AlignmentMap] = []
    if task == _TEXT_TO_TEXT and onnx_file is None:
        results = _written(model_folder, config, filled, batch_size, None if alignment_file is None else alignments)
    else:
        results = _predicted(_pipeline(task, model_folder, config, onnx_file), filled, batch_size)
    for text in texts:
        yield {"text": text, "predictions": next(results) if text.strip() else []}
    if alignment_file is not None:
        # The folder of the picture, so that the last step is a rename, which leaves the whole file or none.
        with TemporaryDirectory(dir=alignment_file.parent, prefix=".alignment-") as folder:
            drawn = Path(folder) / alignment_file.name
            draw_alignments(alignments, drawn)
            os.replace(drawn, alignment_file)


def _written(
    model_folder: str | Path,
    config: PreTrainedConfig,
    texts: Sequence[str],
    batch_size: int,
    alignments: list[AlignmentMap] | None,
) -> Iterator[list[dict[str, Any]]]:
    """Have a model write for each text; collects the alignments, if they are asked for."""
    tokenizer = load_tokenizer(model_folder)
    model = load_whole_model(AUTO_CLASSES[_TEXT_TO_TEXT], model_folder, config)
    for written in write_texts(model, tokenizer, texts, batch_size=batch_size, with_alignment=alignments is not None):
        if alignments is not None and written.alignment is not None:
            alignments.append(written.alignment)
        yield [{"generated_text": text} for text in written.texts]


def _predicted(pipe: Pipeline, texts: Sequence[str], batch_size: int) -> Iterator[list[dict[str, Any]]]:
    if pipe.task == "fill-mask":
        _check_masks(texts, pipe.tokenizer.mask_token)
    settings = _settings(pipe)
    results = pipe((text for text in texts), batch_size=batch_size, **settings) if texts else ()
    for text, found in zip(texts, results, strict=True):
        if settings.get("aggregation_strategy") == "none":
            found = tags_of_words(text, found)
        yield [_plain(item) for item in (found if isinstance(found, list) else [found])]


def _pipeline(task: str, model_folder: str | Path, config: PreTrainedConfig, onnx_file: Path | None) -> Pipeline:
    tokenizer = load_tokenizer(model_folder)
    if onnx_file is not None:
        return onnx_pipeline(task, onnx_file, config, tokenizer)
    # Given a name, a pipeline tells what went wrong by the tracebacks of all that it tried.
    return pipeline(task, model=load_whole_model(AUTO_CLASSES[task], model_folder, config), tokenizer=tokenizer)


def _settings(pipe: Pipeline) -> dict[str, Any]:
    if pipe.task == "fill-mask":
        return {"tokenizer_kwargs": {"truncation": True}}
    if pipe.task == "token-classification":
        names = list(pipe.model.config.id2label.values())
        if are_span_tags(names, getattr(pipe.model.config, "tag_scheme", None)):
            return {"aggregation_strategy": "simple"}
        return {"aggregation_strategy": "none", "ignore_labels": []}
    several = pipe.model.config.problem_type == "multi_label_classification"
    return {"truncation": True, **({"top_k": None} if several else {})}


def _check_masks(texts: Sequence[str], mask_token: str) -> None:
    for text in texts:
        count = text.count(mask_token)
        if count != 1:
            raise ValueError(
                f"the text {text[:60]!r} has {count or 'no'} {mask_token}: put one where a token is to be filled in."
            )


def _plain(prediction: dict[str, Any]) -> dict[str, Any]:
    """Turn numpy numbers into Python's, which JSON knows."""
    return {key: value.item() if hasattr(value, "item") else value for key, value in prediction.items()}
