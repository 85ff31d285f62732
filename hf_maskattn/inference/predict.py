"""What a model says about texts, by the pipeline of its own task, run by torch or from an ONNX file."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import Encoding
from transformers import Pipeline, PreTrainedConfig, PreTrainedTokenizerBase, pipeline

from hf_maskattn.data.encoding import count_truncated_tokens
from hf_maskattn.data.tag_encoding import aggregate_words
from hf_maskattn.data.tokenizers import load_tokenizer
from hf_maskattn.inspection.attention_maps import AlignmentMap
from hf_maskattn.inspection.plots import draw_alignments, validate_plot_path
from hf_maskattn.inspection.text_generation import generate_texts
from hf_maskattn.loading import in_one_line, load_config, load_whole_model
from hf_maskattn.metrics.classification import are_span_tags
from hf_maskattn.onnx.runtime import onnx_pipeline
from hf_maskattn.tasks import TASKS, task_of


def require_place(path: Path, overwrite: bool) -> None:
    """Refuse a path that no file can be written to, before anything costly is done.

    Args:
        path: The file to write.
        overwrite: Whether to replace a file.

    Raises:
        FileNotFoundError: If its folder does not exist.
        ValueError: If it is a folder, or a file that is not to be replaced.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to: make it, or name another.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, give the name of a file.")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists: replace it with --overwrite, or name another file.")


logger = logging.getLogger(__name__)

_TEXT_TO_TEXT = "text2text-generation"

_BATCHES_IN_A_WINDOW = 64

_CHARACTERS_IN_A_BATCH = 2**17
"""Padding included: batches of long texts hold fewer of them, since memory follows the characters."""

_FAILURES = (ValueError, TypeError, IndexError, RuntimeError)
"""What tokenizers and models raise for a text that they cannot take; RuntimeError includes a lack of memory."""


@dataclass(frozen=True)
class _Answer:
    """What a model says about one text: predictions, or the reason why there are none."""

    predictions: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    cut_tokens: int = 0
    alignment: AlignmentMap | None = None


def predict(
    model_folder: str | Path,
    texts: Iterable[str],
    *,
    batch_size: int = 32,
    max_length: int | None = None,
    onnx_file: Path | None = None,
    alignment_file: Path | None = None,
    overwrite: bool = False,
) -> Iterator[dict[str, Any]]:
    """Predict for texts with the pipeline that the class of a model asks for, or have it write texts.

    Texts are read in windows of 64 batches and sorted by length there, so that a batch has little padding.

    Args:
        model_folder: Folder of the model, or its name on the Hub.
        texts: The texts.
        batch_size: Largest number of texts that go through the model together; fewer where they are long.
        max_length: Largest number of tokens of a text, with those that the tokenizer adds. The rest is cut off, and a warning
            at the end counts it. `None` cuts nothing: a recurrent model has no limit.
        onnx_file: File that was exported from the model, to be run by onnxruntime in place of its weights.
        alignment_file: Picture to draw, when all is predicted, of how what a model wrote is aligned with the texts.
        overwrite: Whether to replace that picture.

    Yields:
        For each text, in order, `{"text": ..., "predictions": [...]}`. A prediction is what the pipeline gives: label and
        score of a text (of each label, where there may be several), of each span, of each word where tags mark no spans, or of
        each filling of the mask; or
        `{"generated_text": ...}`, as many as `num_return_sequences` of the model's `generation_config`. A text without a
        visible character has no predictions. For a text that cannot be answered, such as one without a mask where a mask is
        to be filled, `{"text": ..., "error": ...}`; the others are answered all the same.

    Raises:
        ValueError: If the model has no task, `batch_size` or `max_length` is below 1, the ONNX file is not one of this model,
            or there cannot be a picture.
        OSError: If there is no such model, file or folder.
        ImportError: If onnxruntime or matplotlib is needed and not installed.
    """
    for name, value in {"batch_size": batch_size, "max_length": max_length}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    config = load_config(model_folder)
    task = task_of(config.architectures)
    if task is None:
        raise ValueError(
            f"{model_folder} was saved as {', '.join(config.architectures or []) or 'no class'}, which predicts nothing: train "
            f"a model with one of the tasks {', '.join(TASKS)}."
        )
    if alignment_file is not None:
        if task != _TEXT_TO_TEXT:
            raise ValueError(
                f"{model_folder} is a model for {task}, which has no attention from an output to its source: only what models "
                f"for {_TEXT_TO_TEXT} write can be aligned."
            )
        require_place(alignment_file, overwrite)
        validate_plot_path(alignment_file)
    answer: Callable[[list[str]], list[_Answer]]
    if task == _TEXT_TO_TEXT and onnx_file is None:
        answer = _writer(model_folder, config, max_length, with_alignment=alignment_file is not None)
    else:
        answer = _reader(_pipeline(task, model_folder, config, onnx_file), max_length)
    alignments: list[AlignmentMap] = []
    cuts: list[int] = []
    count = 0
    for text, found in _answer_all(answer, texts, batch_size):
        count += 1
        if found.cut_tokens:
            cuts.append(found.cut_tokens)
        if found.alignment is not None:
            alignments.append(found.alignment)
        yield {"text": text, **({"predictions": found.predictions} if found.error is None else {"error": found.error})}
    if cuts:
        logger.warning(
            f"{len(cuts):,} of {count:,} texts were longer than max_length={max_length} tokens; {sum(cuts):,} tokens were cut."
        )
    if alignment_file is not None:
        # The folder of the picture, so that the last step is a rename, which leaves the whole file or none.
        with TemporaryDirectory(dir=alignment_file.parent, prefix=".alignment-") as folder:
            drawn = Path(folder) / alignment_file.name
            draw_alignments(alignments, drawn)
            os.replace(drawn, alignment_file)


def _answer_all(
    answer: Callable[[list[str]], list[_Answer]], texts: Iterable[str], batch_size: int
) -> Iterator[tuple[str, _Answer]]:
    """Answer texts in batches of similar length, in the order of the texts."""
    rest = iter(texts)
    while window := list(islice(rest, _BATCHES_IN_A_WINDOW * batch_size)):
        answers = [_Answer()] * len(window)  # of texts without a visible character
        for rows in _batches(window, batch_size):
            for row, found in zip(rows, _answer_batch(answer, [window[row] for row in rows]), strict=True):
                answers[row] = found
        yield from zip(window, answers, strict=True)


def _batches(texts: Sequence[str], batch_size: int) -> Iterator[list[int]]:
    """Yield the locations of texts that go through a model together, the longest texts first."""
    order = sorted((row for row, text in enumerate(texts) if text.strip()), key=lambda row: len(texts[row]), reverse=True)
    start = 0
    while start < len(order):
        size = max(1, min(batch_size, _CHARACTERS_IN_A_BATCH // len(texts[order[start]])))
        yield order[start : start + size]
        start += size


def _answer_batch(answer: Callable[[list[str]], list[_Answer]], texts: list[str]) -> list[_Answer]:
    """Answer a batch; where that fails, answer its halves, so that no text costs another one its answer."""
    try:
        return answer(texts)
    except _FAILURES as error:
        if len(texts) == 1:
            return [_Answer(error=f"{in_one_line(error)}.")]
    half = len(texts) // 2
    return [*_answer_batch(answer, texts[:half]), *_answer_batch(answer, texts[half:])]


def _writer(
    model_folder: str | Path, config: PreTrainedConfig, max_length: int | None, *, with_alignment: bool
) -> Callable[[list[str]], list[_Answer]]:
    """Build what has a model write for a batch of texts."""
    tokenizer = load_tokenizer(model_folder)
    model = load_whole_model(TASKS[_TEXT_TO_TEXT].auto_class.load(), model_folder, config)

    def answer(texts: list[str]) -> list[_Answer]:
        written = generate_texts(
            model, tokenizer, texts, batch_size=len(texts), max_length=max_length, with_alignment=with_alignment
        )
        return [
            _Answer([{"generated_text": text} for text in one.texts], cut_tokens=one.cut_tokens, alignment=one.alignment)
            for one in written
        ]

    return answer


def _reader(pipe: Pipeline, max_length: int | None) -> Callable[[list[str]], list[_Answer]]:
    """Build what has a pipeline read a batch of texts.

    The pipeline's own `__call__` tokenizes and collates texts one by one, which takes longer than a small model does. Here a
    batch is tokenized at once; the model is run and its outputs are turned into predictions by the pipeline.
    """
    tokenizer, has_tags = pipe.tokenizer, pipe.task == "token-classification"
    # A batch is too small for threads of the tokenizer; pipelines turn them off, too.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    settings = _settings(pipe)
    _, forward_params, postprocess_params = pipe._sanitize_parameters(**settings)

    def answer(texts: list[str]) -> list[_Answer]:
        encoded = tokenizer(
            texts,
            padding=True,
            truncation=max_length is not None,
            max_length=max_length,
            return_tensors="pt",
            return_special_tokens_mask=has_tags,
            verbose=False,  # or it would warn of texts that are longer than those of the training
        )
        of_chunks = {"sentence": texts, "is_last": [True] * len(texts)} if has_tags else {}
        outputs = pipe.forward({**encoded, **of_chunks}, **forward_params)
        tensors = {name: value for name, value in outputs.items() if torch.is_tensor(value)}
        answers = []
        for row, (encoding, cut_tokens) in enumerate(zip(encoded.encodings, count_truncated_tokens(encoded), strict=True)):
            output: dict[str, Any] = {name: value[row : row + 1] for name, value in tensors.items()}
            if has_tags:
                output |= {"sentence": texts[row], "offset_mapping": [encoding.offsets]}
            error = _mask_error(tokenizer, encoding, max_length) if pipe.task == "fill-mask" else None
            if error is not None:
                answers.append(_Answer(error=error, cut_tokens=cut_tokens))
                continue
            found = pipe.postprocess([output] if has_tags else output, **postprocess_params)
            if settings.get("aggregation_strategy") == "none":
                found = aggregate_words(texts[row], found)
            predictions = [_plain(item) for item in (found if isinstance(found, list) else [found])]
            answers.append(_Answer(predictions, cut_tokens=cut_tokens))
        return answers

    return answer


def _pipeline(task: str, model_folder: str | Path, config: PreTrainedConfig, onnx_file: Path | None) -> Pipeline:
    tokenizer = load_tokenizer(model_folder)
    if onnx_file is not None:
        return onnx_pipeline(task, onnx_file, config, tokenizer)
    # Given a name, a pipeline tells what went wrong by the tracebacks of all that it tried.
    return pipeline(task, model=load_whole_model(TASKS[task].auto_class.load(), model_folder, config), tokenizer=tokenizer)


def _settings(pipe: Pipeline) -> dict[str, Any]:
    if pipe.task == "token-classification":
        names = list(pipe.model.config.id2label.values())
        if are_span_tags(names, getattr(pipe.model.config, "tag_scheme", None)):
            return {"aggregation_strategy": "simple"}
        return {"aggregation_strategy": "none", "ignore_labels": []}
    return {"top_k": None} if pipe.model.config.problem_type == "multi_label_classification" else {}


def _mask_error(tokenizer: PreTrainedTokenizerBase, encoding: Encoding, max_length: int | None) -> str | None:
    """Say why the mask of a text cannot be filled; None if it can."""
    mask, count = tokenizer.mask_token, encoding.ids.count(tokenizer.mask_token_id)
    if count == 1:
        return None
    if count == 0 and any(tokenizer.mask_token_id in part.ids for part in encoding.overflowing):
        return f"The {mask} of this text lies behind max_length={max_length} tokens. Raise or omit max_length."
    return f"A text must have one {mask}, got {count or 'none'}. Put one where a token is to be filled in."


def _plain(prediction: dict[str, Any]) -> dict[str, Any]:
    """Turn numpy numbers into Python's, which JSON knows."""
    return {key: value.item() if hasattr(value, "item") else value for key, value in prediction.items()}
