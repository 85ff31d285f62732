"""The README of a trained model: what it is, what it was trained on, how good it is, how to load it, its limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedModel


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
    model: PreTrainedModel,
    task: str,
    data: TrainingData,
    metrics: Mapping[str, Mapping[str, float]],
    metric_names: Sequence[str],
    base_model: str | None = None,
) -> ModelCard:
    """Write the model card of a trained model.

    Args:
        name: Name of the model.
        model: The model.
        task: Its pipeline: "text-classification", "token-classification" or "fill-mask".
        data: What it was trained on.
        metrics: Values by metric name, by split.
        metric_names: The metrics of the task, in the order to show them.
        base_model: Model that it was fine-tuned from.

    Returns:
        The card; `save(path)` writes it.
    """
    results = [
        EvalResult(
            task_type=task,
            dataset_type=data.hub_id or data.name,
            dataset_name=data.name,
            dataset_split=split,
            metric_type=metric,
            metric_value=values[metric],
        )
        for split, values in metrics.items()
        for metric in metric_names
        if metric in values
    ]
    header = ModelCardData(
        model_name=name,
        library_name="transformers",
        pipeline_tag=task,
        tags=["maskattn", model.config.rnn_type, "attention"],
        datasets=data.hub_id,
        base_model=base_model,
        eval_results=results or None,
    )
    sections = [
        f"# {name}",
        _what_it_is(model, task, base_model),
        "## Data\n\n" + _data(data),
        "## Results\n\n" + _results(metrics, ["loss", *metric_names]),
        "## Use\n\n" + _use(name, task),
        "## Limits\n\n" + _LIMITS,
    ]
    return ModelCard(f"---\n{header.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


_LIMITS = """\
- Scores hold for text like that of the data above; other languages, domains and lengths were not measured.
- Nothing was done to find or remove bias in the data; look at the errors before decisions about people depend on it.
- The model code is Apache-2.0. The license of the weights is not set here: choose one that the data allows."""


def _what_it_is(model: PreTrainedModel, task: str, base_model: str | None) -> str:
    config = model.config
    direction = "bidirectional" if config.bidirectional else "unidirectional"
    labels = "" if task == "fill-mask" else f", {config.num_labels} label{'s' if config.num_labels > 1 else ''}"
    origin = f" Fine-tuned from {base_model}." if base_model else ""
    return (
        f"A masked recurrent attention encoder for {task}{labels}: {config.num_hidden_layers} {direction} "
        f"{config.rnn_type.upper()} layer{'s' if config.num_hidden_layers > 1 else ''} of width {config.hidden_size}, additive "
        f"attention with {config.num_attention_heads} head{'s' if config.num_attention_heads > 1 else ''}, "
        f"{model.num_parameters():,} parameters.{origin} A padded token does not exist for it: a text has the same result "
        "alone and in any batch."
    )


def _data(data: TrainingData) -> str:
    lines = [f"**{data.name}**" + (f" ({data.homepage})" if data.homepage else "")]
    if data.description:
        lines.append(data.description.strip())
    lines.append(f"License: {data.license or 'not stated by the data'}.")
    counts = (f"{split} not counted (a stream)" if rows is None else f"{split} {rows:,}" for split, rows in data.rows.items())
    lines.append("Rows: " + ", ".join(counts) + ".")
    return "\n\n".join(lines)


def _results(metrics: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> str:
    shown = [name for name in names if any(name in values for values in metrics.values())]
    lines = ["| split | " + " | ".join(shown) + " |", "|---|" + "---:|" * len(shown)]
    for split, values in metrics.items():
        cells = [f"{values[name]:.4f}" if name in values else "" for name in shown]
        lines.append(f"| {split} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _use(name: str, task: str) -> str:
    return f"""\
With the package (`pip install hf-maskattn`):

```python
import hf_maskattn
from transformers import pipeline

model = pipeline("{task}", model="{name}")  # this folder, or its name on the Hub
```

Without it, the code that travels with the weights is used; read it before you trust it:

```python
from transformers import pipeline

model = pipeline("{task}", model="{name}", trust_remote_code=True)
```"""
