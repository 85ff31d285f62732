"""The README of a trained model: what it is, what it was trained on, how good it is, how to load it, its limits."""

import html
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedConfig

from hf_maskattn.model.remote_code import install_command
from hf_maskattn.tasks import TASKS, loading_call

MOST_EXAMPLES = 3
_LONGEST_EXAMPLE = 200
_LICENSE = "unknown"


@dataclass(frozen=True)
class TrainingData:
    """What a model card says about the data.

    Args:
        name: Name for people.
        hub_id: Name of the dataset on the Hub, None if it is not from there.
        description: What it is, empty if unknown.
        license: Its license, empty if unknown.
        homepage: Its page, empty if unknown.
        rows: Number of rows of each split, None if it is a stream.
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
    examples: Sequence[str] = (),
    picture: str | None = None,
) -> ModelCard:
    """Write the model card of a trained model.

    Args:
        name: Name of the model.
        config: Its configuration.
        num_parameters: How many parameters it has.
        task: Its pipeline: "text-classification", "token-classification" or "fill-mask"; None if it has no head.
        data: What it was trained on, None if that is not known.
        metrics: Values by metric name, by split.
        metric_names: The metrics of the task, in the order to show them.
        base_model: Name, for people, of the model that it was fine-tuned from.
        base_model_id: Name of that model on the Hub, None if it is not from there.
        examples: Texts to try it on; the first few are taken, cut where they are long.
        picture: File beside the card that shows attention over texts.

    Returns:
        The card; `save(path)` writes it.
    """
    metrics = metrics or {}
    results = _eval_results(task, data, metrics, metric_names) if task and data else []
    header = ModelCardData(
        model_name=name if results else None,
        library_name="transformers",
        license=_LICENSE,
        pipeline_tag=task if task in TASKS and TASKS[task].has_pipeline else None,
        tags=["maskattn", config.rnn_type, "attention"],
        datasets=data.hub_id if data else None,
        base_model=base_model_id,
        eval_results=results or None,
        widget=[{"text": text} for text in _shortened(examples)] or None,
    )
    shown = _ALIGNMENT if config.is_encoder_decoder else _ATTENTION
    sections = [
        f"# {name}",
        _what_it_is(config, num_parameters, task, base_model),
        "## Data\n\n" + (_data(data) if data else "What it was trained on is not told here."),
        "## Results\n\n" + (_results(metrics, ["loss", *metric_names]) if metrics else "No scores are told here."),
        "## Use\n\n" + _use(name, config, task),
        "## Attention\n\n" + shown.format(picture=picture) if picture else "",
        "## Limits\n\n" + _LIMITS,
        "## License\n\n" + _licenses(data),
    ]
    return ModelCard(f"---\n{header.to_yaml()}\n---\n\n" + "\n\n".join(filter(None, sections)) + "\n")


def read_model_card(card: str) -> ModelCard:
    """Read a card that anybody may have written.

    Raises:
        ValueError: If its header is not YAML, or not that of a card.
    """
    try:
        return ModelCard(card)
    except Exception as error:
        raise ValueError(f"the header of the model card cannot be read: {' '.join(str(error).split())}.") from error


def name_in_card(card: str, name: str) -> str:
    """Change the name by which a card of this package calls its model.

    Args:
        card: Text of a card; of one that somebody else wrote only what calls a model by the name in its heading is changed.
        name: The new name.

    Returns:
        The text with the new name in its heading, its code and its `model-index`.

    Raises:
        ValueError: If the header of the card cannot be read.
    """
    parsed = read_model_card(card)
    heading = next((line[2:] for line in parsed.text.splitlines() if line.startswith("# ")), None)
    if heading is None or not any(call.format(name=heading) in parsed.text for call in _CALLS):
        return card
    if parsed.data.get("model_name") == heading:
        parsed.data["model_name"] = name
    parsed.text = parsed.text.replace(f"# {heading}\n", f"# {name}\n", 1)
    for call in _CALLS:
        parsed.text = parsed.text.replace(call.format(name=heading), call.format(name=name))
    return parsed.content


_CALLS = ('model="{name}"', 'from_pretrained("{name}"')
_ATTENTION = """\
![Attention over texts]({picture})

Texts of the data, one a row, padded to the longest. The darker a token, the more attention it takes; the pads, hatched, take \
none. With `output_attentions=True` the model returns these weights."""
_ALIGNMENT = """\
![What was read for each token that was written]({picture})

Texts of the data, from left to right, and what the model writes for them, from top to bottom. The brighter a square, the more \
attention that token took of the source. `generate(..., output_attentions=True, return_dict_in_generate=True)` \
returns these weights as `cross_attentions`."""
_LIMITS = """\
- Scores hold for text like that of the data above; other languages, domains and lengths were not measured.
- Nothing was done to find or remove bias in the data; look at the errors before decisions about people depend on it."""


def _eval_results(
    task: str, data: TrainingData, metrics: Mapping[str, Mapping[str, float]], names: Sequence[str]
) -> list[EvalResult]:
    return [
        EvalResult(
            task_type=task,
            dataset_type=data.hub_id or _plain(data.name),
            dataset_name=_plain(data.name),
            dataset_split=split,
            metric_type=metric,
            metric_value=values[metric],
        )
        for split, values in metrics.items()
        for metric in names
        if math.isfinite(values.get(metric, math.nan))
    ]


def _shortened(examples: Sequence[str]) -> list[str]:
    """Take the first few texts that say anything."""
    texts = dict.fromkeys(_plain(text)[:_LONGEST_EXAMPLE] for text in examples)
    return [text for text in texts if text][:MOST_EXAMPLES]


def _plain(text: str) -> str:
    """Put a text on one line, without control characters, which not every YAML comes through."""
    return " ".join("".join(sign if unicodedata.category(sign) not in ("Cc", "Cs") else " " for sign in text).split())


def _what_it_is(config: PreTrainedConfig, num_parameters: int, task: str | None, base_model: str | None) -> str:
    if config.is_encoder_decoder:
        layers = f"{config.encoder_layers} + {config.decoder_layers} {config.rnn_type.upper()} layers"
        kind, use = "recurrent encoder-decoder", "texts from texts"
    else:
        direction = "bidirectional" if config.bidirectional else "unidirectional"
        layers = f"{_counted(config.num_hidden_layers, f'{direction} {config.rnn_type.upper()} layer')}"
        kind, use = "masked recurrent attention encoder", task or "features of texts"
    labels = ", " + _counted(config.num_labels, "label") if task in ("text-classification", "token-classification") else ""
    origin = f" Fine-tuned from {base_model}." if base_model else ""
    return (
        f"A {kind} for {use}{labels}: {layers} of width {config.hidden_size}, additive attention with "
        f"{_counted(config.num_attention_heads, 'head')}, {num_parameters:,} parameters.{origin} A padded token does not exist "
        f"for it: a text has the same result alone and in any batch.{_tags(config, task)}"
    )


def _tags(config: PreTrainedConfig, task: str | None) -> str:
    """Tell how the data is tagged, and what the labels of the model mark."""
    scheme = getattr(config, "tag_scheme", None)
    if task != "token-classification" or scheme is None:
        return ""
    if scheme == "none":
        return "\n\nTag scheme of the data: none. The label of the first token of a word is its tag."
    return f"\n\nTag scheme of the data: {scheme}. The labels mark the same entities in IOB2 (B-, I-, O), which pipelines read."


def _counted(number: int, name: str) -> str:
    return f"{number} {name}{'s' if number > 1 else ''}"


def _data(data: TrainingData) -> str:
    lines = [f"**{_line(data.name)}**" + (f" ({_line(data.homepage)})" if data.homepage else "")]
    if data.description.strip():
        # A quotation ends with its last line, whatever the description opens and does not close.
        lines.append("\n".join(f"> {line}".rstrip() for line in _escaped(data.description).strip().splitlines()))
    counts = (f"{split} not counted (a stream)" if rows is None else f"{split} {rows:,}" for split, rows in data.rows.items())
    lines.append("Rows: " + ", ".join(counts) + ".")
    return "\n\n".join(lines)


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)


def _line(text: str) -> str:
    return _escaped(_plain(text))


def _results(metrics: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> str:
    shown = [name for name in names if any(name in values for values in metrics.values())]
    lines = ["| split | " + " | ".join(shown) + " |", "|---|" + "---:|" * len(shown)]
    for split, values in metrics.items():
        cells = [f"{values[name]:.4f}" if name in values else "" for name in shown]
        lines.append(f"| {split} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


_GENERATE = """
batch = tokenizer(["..."], return_tensors="pt")
print(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))"""


_LIMIT_OF_TAGS = """

This pipeline cuts a text at the `model_max_length` of its tokenizer without a word, though the model has no limit. To read \
longer texts, set `model.tokenizer.model_max_length = 10**9`."""


def _use(name: str, config: PreTrainedConfig, task: str | None) -> str:
    call = loading_call(config, task, name)
    names = ", ".join([call.partition("(")[0].partition(".")[0], *([] if call.startswith("pipeline") else ["AutoTokenizer"])])
    tokenizer = "" if call.startswith("pipeline") else f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n'
    written = _GENERATE if task == "text2text-generation" else ""
    limit = _LIMIT_OF_TAGS if task == "token-classification" else ""
    return f"""\
With the package (`{install_command()}`):

```python
import hf_maskattn
from transformers import {names}

{tokenizer}model = {call}{written}
```

Without it, the code that travels with the weights is used; read it before you trust it:

```python
from transformers import {names}

{tokenizer.replace(")", ", trust_remote_code=True)")}model = {loading_call(config, task, name, trust_remote_code=True)}{written}
```{limit}"""


def _licenses(data: TrainingData | None) -> str:
    told = _line(data.license) if data else "not told here"
    return f"""\
- Code: Apache-2.0.
- Data: {told or "not told by the data"}.
- Weights: `license: {_LICENSE}` in the header of this file stands for a license that nobody has chosen. Choose one that the \
data allows, and write it there."""
