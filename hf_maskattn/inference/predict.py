"""Predictions of a model for texts, by PyTorch or from an ONNX file."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import torch
from tokenizers import Encoding
from transformers import BatchEncoding, GenerationConfig, Pipeline, PreTrainedConfig, PreTrainedTokenizerBase, pipeline

from hf_maskattn.data.tokenizers import BATCHES_PER_WINDOW, batch_by_length, is_unknown, load_tokenizer
from hf_maskattn.inference.input_rows import InputRow, parse_row
from hf_maskattn.loading import has_file, load_config, load_verified_model, to_one_line
from hf_maskattn.tasks import TASKS, task_of

if TYPE_CHECKING:
    from hf_maskattn.inspection.attention_maps import AlignmentMap

logger = logging.getLogger(__name__)

_TEXT_TO_TEXT = "text2text-generation"
_JOINT = "joint-classification"

_FAILURES = (ValueError, TypeError, IndexError, RuntimeError)
"""What tokenizers and models raise for a text that they do not accept. RuntimeError includes a lack of memory."""


@dataclass(frozen=True)
class _Prediction:
    """The predictions for one text, or the reason why there are none."""

    predictions: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    cut_tokens: int = 0
    is_unknown: bool = False
    alignment: "AlignmentMap | None" = None

    def result(self, row: InputRow) -> dict[str, Any]:
        """Return what `predict` yields for a row."""
        outcome = {"predictions": self.predictions} if self.error is None else {"error": self.error}
        return {**row.columns, **outcome, **({"warning": UNKNOWN_TEXT} if self.is_unknown else {})}


_Predictor = Callable[[list[InputRow]], list[_Prediction]]

UNKNOWN_TEXT = "All tokens of this text are unknown to the tokenizer of the model."
"""Warning in the result of a text whose words the model cannot read."""


def predict(
    model_folder: str | Path,
    texts: Iterable[str | Sequence[str] | Mapping[str, Any]],
    *,
    column: str = "text",
    top_k: int | Literal["all"] | None = None,
    num_beams: int | None = None,
    num_return_sequences: int | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    onnx_file: str | Path | None = None,
    alignment_file: str | Path | None = None,
    overwrite: bool = False,
) -> Iterator[dict[str, Any]]:
    """Predict for texts with the pipeline of a model's task, or generate text with it.

    Arguments are checked and the model is loaded at the call, also the texts if they are a list. Texts are read in windows of
    64 batches and sorted by length there, so that a batch has little padding.

    Args:
        model_folder: Folder of the model, or its name on the Hub.
        texts: Texts, lists of words, or rows that have either in a column. Words are joined by spaces, as in training.
        column: Column of the text or words of a row.
        top_k: Number of predictions of a text with their scores, or "all": of the labels of a text, or of the tokens that fill
            the mask (not "all"). None means the most probable label (all labels, where a text may have several), or 5 tokens.
        num_beams: For text-to-text generation, the number of beams. The predictions then have a `score`: the log-probability
            of the text, divided by its number of tokens to the power of `length_penalty`.
        num_return_sequences: For text-to-text generation, the number of texts, the best first.
        batch_size: Maximum number of texts in a batch. Batches of long texts are smaller.
        max_length: Maximum number of tokens of a text, special tokens included. Longer texts are truncated, and a warning at
            the end counts the tokens that were cut. `None` truncates nothing: a recurrent model has no limit.
        onnx_file: File that was exported from the model, to be run by onnxruntime instead of its weights.
        alignment_file: Picture to draw at the end, which aligns the generated texts with their sources.
        overwrite: Whether to replace that picture.

    Returns:
        An iterator over one dictionary per text, in order: `{"text": ..., "predictions": [...]}`. A row keeps its columns:
        `{**row, "predictions": [...]}`. A prediction is what the pipeline returns: label and score of a text (of every label,
        where a text may have several), of each span, of each word where the tags mark no spans, or of each token that fills
        the mask. For joint classification, the most probable label of a text has its spans or words as `entities`. With lists
        of words, spans and words have the indices of their `words`. Generated texts are `{"generated_text": ...}`, as many as
        `num_return_sequences` here or in the model's `generation_config`. A text without a visible character has no
        predictions. A text that the model does not accept, such as one without a mask, has an `error` instead of
        `predictions`. A text of unknown tokens only has a `warning`; the log counts them at the end.

    Raises:
        ValueError: If the model has no task, or not the task of an option, a number is below 1, the ONNX file was not exported
            from this model, the picture cannot be drawn, or a row lacks the column.
        TypeError: If `texts` is a single text, or one of them is neither a string nor a list of strings.
        OSError: If there is no such model, file or folder.
        ImportError: If onnxruntime or matplotlib is needed and not installed.
    """
    if isinstance(texts, str):
        raise TypeError(f"texts must be an iterable of texts, got a single string ({texts[:20]!r}). Pass a list of one text.")
    onnx_file = None if onnx_file is None else Path(onnx_file)
    alignment_file = None if alignment_file is None else Path(alignment_file)
    beams = {"num_beams": num_beams, "num_return_sequences": num_return_sequences}
    numbers = {"batch_size": batch_size, "max_length": max_length, "top_k": None if top_k == "all" else top_k, **beams}
    for name, value in numbers.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be at least 1, got {value}.")
    config = load_config(model_folder)
    task = task_of(config.architectures)
    if task is None:
        raise ValueError(
            f"{model_folder} must be a model for one of the tasks {', '.join(TASKS)}, got "
            f"{', '.join(config.architectures or []) or 'no class'}."
        )
    _check_top_k(top_k, task, config)
    settings = {name: value for name, value in beams.items() if value is not None}
    if settings:
        _check_beams(settings, task, model_folder)
    if alignment_file is not None:
        _check_alignment(alignment_file, overwrite, task, model_folder)
    rows: Iterable[InputRow] = (parse_row(item, column, f"row {index} (counted from 0)") for index, item in enumerate(texts))
    if isinstance(texts, Sequence):
        rows = list(rows)
    if task == _TEXT_TO_TEXT and onnx_file is None:
        predictor = _build_generator(
            model_folder, config, max_length, with_alignment=alignment_file is not None, with_scores=bool(settings), **settings
        )
    else:
        predictor = _build_classifier(_load_pipeline(task, model_folder, config, onnx_file), max_length, top_k)
    return _predict(predictor, rows, batch_size, max_length, alignment_file)


def _check_top_k(top_k: int | str | None, task: str, config: PreTrainedConfig) -> None:
    if top_k is None:
        return
    if task not in ("text-classification", _JOINT, "fill-mask") or config.problem_type == "regression":
        task = "regression" if config.problem_type == "regression" else TASKS[task].recipe_name
        raise ValueError(f"top_k needs a model that classifies texts or fills masks, got {top_k!r} for {task}. Omit it.")
    if top_k == "all" and task == "fill-mask":
        raise ValueError("top_k must be a number for fill-mask, got 'all'.")


def _check_beams(settings: dict[str, int], task: str, model_folder: str | Path) -> None:
    """Reject more texts than beams, which `generate()` cannot return."""
    if task != _TEXT_TO_TEXT:
        raise ValueError(
            f"{' and '.join(settings)} must be None for {TASKS[task].recipe_name}, because {model_folder} generates no text."
        )
    has_config = has_file(model_folder, "generation_config.json")
    saved = GenerationConfig.from_pretrained(model_folder) if has_config else GenerationConfig()
    num_beams = settings.get("num_beams") or saved.num_beams or 1
    num_texts = settings.get("num_return_sequences") or saved.num_return_sequences or 1
    if num_texts > num_beams and not saved.do_sample:
        raise ValueError(
            f"num_return_sequences must be at most the number of beams, {num_beams}, got {num_texts}. Set "
            f"num_beams={num_texts}."
        )


def check_output_path(path: Path, overwrite: bool) -> None:
    """Reject a path that no file can be written to, before anything costly is done.

    Raises:
        FileNotFoundError: If its folder does not exist.
        ValueError: If it is a folder, or a file that must not be replaced.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder {path.parent} does not exist. Create it, or choose another for {path.name}.")
    if path.is_dir():
        raise ValueError(f"The output must be a file, got the folder {path}.")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists. Replace it with --overwrite, or choose another file.")


def _check_alignment(alignment_file: Path, overwrite: bool, task: str, model_folder: str | Path) -> None:
    if task != _TEXT_TO_TEXT:
        raise ValueError(
            f"An alignment needs a model for {_TEXT_TO_TEXT}, got {model_folder} for {task}, which does not attend from an "
            "output to its source."
        )
    from hf_maskattn.inspection.attention_maps import validate_plot_path

    check_output_path(alignment_file, overwrite)
    validate_plot_path(alignment_file)


def _predict(
    predictor: _Predictor, rows: Iterable[InputRow], batch_size: int, max_length: int | None, alignment_file: Path | None
) -> Iterator[dict[str, Any]]:
    alignments: list[AlignmentMap] = []
    cuts: list[int] = []
    count, num_unknown = 0, 0
    for row, result in _predict_windows(predictor, rows, batch_size):
        count += 1
        num_unknown += result.is_unknown
        if result.cut_tokens:
            cuts.append(result.cut_tokens)
        if result.alignment is not None:
            alignments.append(result.alignment)
        yield result.result(row)
    if cuts:
        logger.warning(
            f"{len(cuts):,} of {count:,} texts were longer than max_length={max_length} tokens. {sum(cuts):,} tokens were cut."
        )
    if num_unknown:
        logger.warning(
            f"{num_unknown:,} of {count:,} texts have only tokens that the tokenizer of the model does not know. Their "
            "predictions do not depend on what they say."
        )
    if alignment_file is not None:
        from hf_maskattn.inspection.attention_maps import draw_alignments

        # Drawn in the same folder and renamed, so that there is never half a file.
        with TemporaryDirectory(dir=alignment_file.parent, prefix=".alignment-") as folder:
            picture = Path(folder) / alignment_file.name
            draw_alignments(alignments, picture)
            os.replace(picture, alignment_file)


def _predict_windows(
    predictor: _Predictor, rows: Iterable[InputRow], batch_size: int
) -> Iterator[tuple[InputRow, _Prediction]]:
    """Predict in batches of texts of similar length, and yield in the order of the texts."""
    remaining = iter(rows)
    while window := list(islice(remaining, BATCHES_PER_WINDOW * batch_size)):
        results = [_Prediction()] * len(window)  # for texts without a visible character
        for batch in batch_by_length([row.text for row in window], batch_size):
            for index, result in zip(batch, _predict_batch(predictor, [window[index] for index in batch]), strict=True):
                results[index] = result
        yield from zip(window, results, strict=True)


def _predict_batch(predictor: _Predictor, rows: list[InputRow]) -> list[_Prediction]:
    """Predict for a batch. If that fails, predict for its halves, so that only the text that fails has no prediction."""
    try:
        return predictor(rows)
    except _FAILURES as error:
        if len(rows) == 1:
            return [_Prediction(error=f"{to_one_line(error)}.")]
    half = len(rows) // 2
    return [*_predict_batch(predictor, rows[:half]), *_predict_batch(predictor, rows[half:])]


def _build_generator(model_folder: str | Path, config: PreTrainedConfig, max_length: int | None, **settings: Any) -> _Predictor:
    """Build a function that generates texts for a batch of texts, with the `settings` of `generate_texts`."""
    from hf_maskattn.inspection.text_generation import generate_texts

    tokenizer = load_tokenizer(model_folder)
    model = load_verified_model(TASKS[_TEXT_TO_TEXT].auto_class.load(), model_folder, config)
    device = torch.accelerator.current_accelerator(check_available=True)
    if device is not None:
        model.to(device)

    def generate(rows: list[InputRow]) -> list[_Prediction]:
        texts, results = [row.text for row in rows], []
        for output in generate_texts(model, tokenizer, texts, batch_size=len(texts), max_length=max_length, **settings):
            predictions: list[dict[str, Any]] = [{"generated_text": text} for text in output.texts]
            for prediction, score in zip(predictions, output.scores or (), strict=output.scores is not None):
                prediction["score"] = score
            results.append(_Prediction(predictions, None, output.cut_tokens, output.is_unknown, output.alignment))
        return results

    return generate


def _build_classifier(pipe: Pipeline, max_length: int | None, top_k: int | str | None = None) -> _Predictor:
    """Build a function that runs a pipeline on a batch of texts.

    The pipeline's own `__call__` tokenizes and collates each text, which takes longer than a small model. Here a batch is
    tokenized at once, and the pipeline runs the model and converts its outputs to predictions.
    """
    from hf_maskattn.data.encoding import count_truncated_tokens

    tokenizer, is_tagger = pipe.tokenizer, pipe.task == "token-classification"
    has_tags = is_tagger or pipe.task == _JOINT
    # A batch is too small for threads of the tokenizer. Pipelines disable them, too.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    settings = _pipeline_settings(pipe, top_k)
    _, forward_params, postprocess_params = pipe._sanitize_parameters(**settings)

    def classify(rows: list[InputRow]) -> list[_Prediction]:
        texts = [row.text for row in rows]
        encoded = tokenizer(
            texts,
            padding=True,
            truncation=max_length is not None,
            max_length=max_length,
            return_tensors="pt",
            return_special_tokens_mask=is_tagger,
            verbose=False,  # no warning about texts that are longer than those of the training
        )
        chunk_fields = {"sentence": texts, "is_last": [True] * len(texts)} if is_tagger else {}
        outputs = pipe.forward({**encoded, **chunk_fields}, **forward_params)
        tensors = {name: value for name, value in outputs.items() if torch.is_tensor(value)}
        tagged = _tag(rows, encoded, outputs["logits"], pipe.model.config) if has_tags else []
        results = []
        cuts = [0] * len(texts) if max_length is None else count_truncated_tokens(encoded)
        for index, encoding in enumerate(encoded.encodings):
            error = _find_mask_error(tokenizer, encoding, max_length) if pipe.task == "fill-mask" else None
            if error is not None:
                results.append(_Prediction(error=error, cut_tokens=cuts[index]))
                continue
            items = tagged[index] if has_tags else []
            if not is_tagger:
                output = {name: value[index : index + 1] for name, value in tensors.items()}
                found = pipe.postprocess(output, **postprocess_params)
                items = [{**found[0], "entities": items}, *found[1:]] if has_tags else found
            predictions = [_to_python(item) for item in (items if isinstance(items, list) else [items])]
            unknown = is_unknown(encoding.ids, encoding.special_tokens_mask, tokenizer.unk_token_id)
            results.append(_Prediction(predictions, None, cuts[index], unknown))
        return results

    return classify


def _tag(
    rows: list[InputRow], encoded: BatchEncoding, logits: torch.Tensor, config: PreTrainedConfig
) -> list[list[dict[str, Any]]]:
    """Return the entities of each text, or its words if tags mark no entities."""
    from hf_maskattn.data.tag_decoding import find_entities, split_words

    spans = [split_words(row.text) if row.words is None else list(row.words.values()) for row in rows]
    offsets = [encoding.offsets for encoding in encoded.encodings]
    found = find_entities([row.text for row in rows], spans, offsets, logits, config)
    for row, items in zip(rows, found, strict=True):
        for item in items if row.words is not None else ():
            item["words"] = row.word_indices(item["start"], item["end"])
    return found


def _load_pipeline(task: str, model_folder: str | Path, config: PreTrainedConfig, onnx_file: Path | None) -> Pipeline:
    tokenizer = load_tokenizer(model_folder)
    if onnx_file is not None:
        from hf_maskattn.onnx.runtime import onnx_pipeline

        return onnx_pipeline(task, onnx_file, config, tokenizer)
    # Loaded here, because a pipeline reports an error by the tracebacks of everything that it tried.
    model = load_verified_model(TASKS[task].auto_class.load(), model_folder, config)
    if task == _JOINT:
        from hf_maskattn.onnx.runtime import JointClassificationPipeline

        return JointClassificationPipeline(model=model.eval(), tokenizer=tokenizer, task=task)
    return pipeline(task, model=model, tokenizer=tokenizer)


def _pipeline_settings(pipe: Pipeline, top_k: int | str | None) -> dict[str, Any]:
    if top_k is not None:
        return {"top_k": None if top_k == "all" else top_k}  # a pipeline returns all labels for None
    return {"top_k": None} if pipe.model.config.problem_type == "multi_label_classification" else {}


def _find_mask_error(tokenizer: PreTrainedTokenizerBase, encoding: Encoding, max_length: int | None) -> str | None:
    """Return why the mask of a text cannot be filled, None if it can."""
    mask, count = tokenizer.mask_token, encoding.ids.count(tokenizer.mask_token_id)
    if count == 1:
        return None
    if count == 0 and any(tokenizer.mask_token_id in part.ids for part in encoding.overflowing):
        return f"The {mask} of this text is beyond max_length={max_length} tokens. Raise or omit max_length."
    return f"A text must have one {mask}, got {count or 'none'}. Add one where a token is to be filled in."


def _to_python(prediction: dict[str, Any]) -> dict[str, Any]:
    """Convert numbers of numpy to Python's, which JSON supports."""
    return {key: value.item() if hasattr(value, "item") else value for key, value in prediction.items()}
