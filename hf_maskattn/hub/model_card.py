"""The model card of a trained model, from the template `model_card_template.md`."""

import html
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedConfig

from hf_maskattn.metrics.task_metrics import AGREEMENT, TEACHER_PREFIX
from hf_maskattn.model.remote_code import install_command
from hf_maskattn.tasks import TASKS, loading_call

MAX_EXAMPLES = 3
_MAX_EXAMPLE_LENGTH = 200
_LICENSE = "unknown"
_TEMPLATE = Path(__file__).with_name("model_card_template.md")
_LOADING_CALLS = ('model="{name}"', 'from_pretrained("{name}"')


@dataclass(frozen=True)
class TrainingData:
    """What a model card says about the data.

    Attributes:
        name: Name to show.
        hub_id: Name of the dataset on the Hub, None if it is not from there.
        description: Its description, empty if unknown.
        license: Its license, empty if unknown.
        homepage: Its page, empty if unknown.
        rows: Number of rows of each split, None for a stream.
    """

    name: str
    hub_id: str | None
    description: str
    license: str
    homepage: str
    rows: Mapping[str, int | None]


def build_model_card(
    name: str,
    config: PreTrainedConfig,
    num_parameters: int,
    task: str | None,
    data: TrainingData | None = None,
    metrics: Mapping[str, Mapping[str, float]] | None = None,
    metric_names: Sequence[str] = (),
    base_model: str | None = None,
    base_model_id: str | None = None,
    embeddings: str | None = None,
    examples: Sequence[str] = (),
    picture: str | None = None,
    attention: str | None = None,
    teacher: str | None = None,
    selection: str | None = None,
) -> ModelCard:
    """Build the model card of a trained model.

    Args:
        name: Name of the model.
        config: Its configuration.
        num_parameters: Number of its parameters.
        task: Its task, such as "text-classification". None if it has no head.
        data: The training data, None if unknown.
        metrics: Values by metric name, by split.
        metric_names: The metrics of the task, in the order to show them.
        base_model: Name to show of the model that it was fine-tuned from.
        base_model_id: Name of that model on the Hub, None if it is not from there.
        embeddings: Name to show of the model or file that its first token embeddings were loaded from.
        examples: Texts for the widget. The first few are used, truncated where they are long.
        picture: File next to the card that shows the contributions of the tokens of texts to their classes, attention over
            texts, or alignments, according to the task.
        attention: Sentences about the attention of the model.
        teacher: Name to show of the model that it was distilled from.
        selection: A sentence about how its weights were selected.

    Returns:
        The card. `save(path)` writes it.
    """
    metrics = metrics or {}
    eval_results = _build_eval_results(task, data, metrics, metric_names) if task and data else []
    header = ModelCardData(
        model_name=name if eval_results else None,
        library_name="transformers",
        license=_LICENSE,
        pipeline_tag=TASKS[task].pipeline if task in TASKS else None,
        tags=["maskattn", config.rnn_type, "attention"],
        datasets=data.hub_id if data else None,
        base_model=base_model_id,
        eval_results=eval_results or None,
        widget=[{"text": text} for text in _select_examples(examples)] or None,
    )
    rows = rows_with_teacher(metrics)
    shown = [metric for metric in ("loss", *metric_names, AGREEMENT) if any(metric in values for values in rows.values())]
    return ModelCard.from_template(
        header,
        template_path=str(_TEMPLATE),
        name=name,
        task=task,
        num_parameters=num_parameters,
        base_model_name=base_model,
        embeddings=embeddings,
        data=data and _describe_data(data),
        metric_names=shown,
        results=[
            (split, [f"{values[metric]:.4f}" if metric in values else "" for metric in shown]) for split, values in rows.items()
        ],
        teacher=teacher and _escape(teacher),
        license=_LICENSE,
        picture=picture,
        attention=attention,
        selection=selection,
        install_command=install_command(),
        **_describe_model(config, task),
        **_describe_loading(name, task),
    )


def rows_with_teacher(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return metrics by split with the metrics of a teacher in rows of their own, for a table."""
    rows: dict[str, dict[str, float]] = {}
    for split, values in metrics.items():
        rows[split] = {name: value for name, value in values.items() if not name.startswith(TEACHER_PREFIX)}
        if len(rows[split]) < len(values):
            by_teacher = {name.removeprefix(TEACHER_PREFIX): values[name] for name in values if name not in rows[split]}
            rows[f"{split}, teacher"] = by_teacher
    return rows


def parse_model_card(card: str) -> ModelCard:
    """Parse a card that anybody may have written.

    Raises:
        ValueError: If its header is not valid.
    """
    try:
        return ModelCard(card)
    except Exception as error:
        raise ValueError(f"The header of the model card is not valid: {' '.join(str(error).split())}.") from error


def rename_in_card(card: str, name: str) -> str:
    """Change the name of the model in a card of this package.

    Args:
        card: Text of a card. A card that somebody else wrote is changed only where it loads a model by the name in its heading.
        name: The new name.

    Returns:
        The text with the new name in its heading, its code and its `model-index`.

    Raises:
        ValueError: If the header of the card is not valid.
    """
    parsed = parse_model_card(card)
    heading = next((line[2:] for line in parsed.text.splitlines() if line.startswith("# ")), None)
    if heading is None or not any(call.format(name=heading) in parsed.text for call in _LOADING_CALLS):
        return card
    if parsed.data.get("model_name") == heading:
        parsed.data["model_name"] = name
    parsed.text = parsed.text.replace(f"# {heading}\n", f"# {name}\n", 1)
    for call in _LOADING_CALLS:
        parsed.text = parsed.text.replace(call.format(name=heading), call.format(name=name))
    return parsed.content


def _build_eval_results(
    task: str, data: TrainingData, metrics: Mapping[str, Mapping[str, float]], names: Sequence[str]
) -> list[EvalResult]:
    return [
        EvalResult(
            task_type=task,
            dataset_type=data.hub_id or _to_one_line(data.name),
            dataset_name=_to_one_line(data.name),
            dataset_split=split,
            metric_type=metric,
            metric_value=values[metric],
        )
        for split, values in metrics.items()
        for metric in names
        if math.isfinite(values.get(metric, math.nan))
    ]


def _select_examples(examples: Sequence[str]) -> list[str]:
    """Select the first few different texts with visible characters."""
    texts = dict.fromkeys(_to_one_line(text)[:_MAX_EXAMPLE_LENGTH] for text in examples)
    return [text for text in texts if text][:MAX_EXAMPLES]


def _describe_model(config: PreTrainedConfig, task: str | None) -> dict[str, Any]:
    rnn_type, is_tagger = config.rnn_type.upper(), task in ("token-classification", "joint-classification")
    if config.is_encoder_decoder:
        layers = f"{config.encoder_layers} + {config.decoder_layers} {rnn_type} layers"
        kind, use = "recurrent encoder-decoder", "text to text"
    else:
        direction = "bidirectional" if config.bidirectional else "unidirectional"
        layers = _count(config.num_hidden_layers, f"{direction} {rnn_type} layer")
        kind, use = "masked recurrent attention encoder", task or "features of texts"
    labels = _count(config.num_labels, "label") if task in ("text-classification", "token-classification") else ""
    if task == "joint-classification":
        labels = f"{_count(len(config.sequence_label_names), 'label')} of texts, {_count(config.num_labels, 'label')} of words"
    return {
        "kind": kind,
        "use": use,
        "labels": f", {labels}" if labels else "",
        "layers": layers,
        "hidden_size": config.hidden_size,
        "heads": _count(config.num_attention_heads, "head"),
        "tag_scheme": getattr(config, "tag_scheme", None) if is_tagger else None,
        "is_tagger": is_tagger,
        "is_encoder_decoder": config.is_encoder_decoder,
    }


def _describe_loading(name: str, task: str | None) -> dict[str, Any]:
    call = loading_call(task, name)
    is_pipeline = call.startswith("pipeline")
    return {
        "call": call,
        "remote_call": loading_call(task, name, trust_remote_code=True),
        "imports": "pipeline" if is_pipeline else f"{call.partition('.')[0]}, AutoTokenizer",
        "tokenizer": not is_pipeline,
        "generates": task == "text2text-generation",
    }


def _describe_data(data: TrainingData) -> dict[str, Any]:
    # Each line is quoted, so that nothing in the description can change the sections of the card.
    lines = [f"> {line}".rstrip() for line in html.escape(data.description, quote=False).strip().splitlines()]
    return {
        "name": _escape(data.name),
        "homepage": _escape(data.homepage),
        "description": "\n".join(lines),
        "license": _escape(data.license),
        "rows": [
            f"{split} not counted (a stream)" if rows is None else f"{split} {rows:,}" for split, rows in data.rows.items()
        ],
    }


def _to_one_line(text: str) -> str:
    """Put a text on one line without control characters, which YAML does not always preserve."""
    is_control = [unicodedata.category(character) in ("Cc", "Cs") for character in text]
    return " ".join("".join(" " if skip else character for character, skip in zip(text, is_control, strict=True)).split())


def _escape(text: str) -> str:
    return html.escape(_to_one_line(text), quote=False)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number > 1 else ''}"
