"""What a model says about texts, by the pipeline of its own task, run by torch or from an ONNX file."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import Pipeline, pipeline

from hf_maskattn.data.tokenizer_loading import load_tokenizer
from hf_maskattn.evaluation.spans import are_span_tags
from hf_maskattn.export.onnx_pipeline import onnx_pipeline
from hf_maskattn.export.tasks import TASKS, task_of
from hf_maskattn.loading.model_loading import load_config, load_whole_model
from hf_maskattn.training.model_building import AUTO_CLASSES


def predict(
    model_folder: str | Path, texts: Sequence[str], *, batch_size: int = 32, onnx_file: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Predict for texts with the pipeline that the class of a model asks for.

    Args:
        model_folder: Folder of the model, or its name on the Hub.
        texts: The texts.
        batch_size: Number of texts that go through the model together.
        onnx_file: File that was exported from the model, to be run by onnxruntime in place of its weights.

    Yields:
        For each text, in order, `{"text": ..., "predictions": [...]}`. A prediction is what the pipeline gives: label and
        score of a text (of each label, where there may be several), of each span, or of each filling of the mask. A
        text without a visible character has no predictions.

    Raises:
        ValueError: If the model has no task, the batch size is below 1, a text to fill has no mask token, or the ONNX file is
            not one of this model.
        OSError: If there is no such model or file.
        ImportError: If an ONNX file is given and onnxruntime is not installed.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1.")
    pipe = _pipeline(model_folder, onnx_file)
    filled = [text for text in texts if text.strip()]
    if pipe.task == "fill-mask":
        _check_masks(filled, pipe.tokenizer.mask_token)
    settings = _settings(pipe)
    results = iter(pipe((text for text in filled), batch_size=batch_size, **settings) if filled else ())
    for text in texts:
        found = next(results) if text.strip() else []
        yield {"text": text, "predictions": [_plain(item) for item in (found if isinstance(found, list) else [found])]}


def _pipeline(model_folder: str | Path, onnx_file: Path | None) -> Pipeline:
    config = load_config(model_folder)
    task = task_of(config.architectures)
    if task is None:
        raise ValueError(
            f"{model_folder} was saved as {', '.join(config.architectures or []) or 'no class'}, which predicts nothing: train "
            f"a model with one of the tasks {', '.join(TASKS.values())}."
        )
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
        return {"aggregation_strategy": "simple" if are_span_tags(names) else "none"}
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
