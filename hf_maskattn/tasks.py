"""What a saved model does, and what of transformers loads it."""

from collections.abc import Sequence

from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
)

PIPELINES = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForMaskedLM": "fill-mask",
}
"""Pipeline of each ending of a class name."""

TASKS = {**PIPELINES, "ForConditionalGeneration": "text2text-generation"}
"""Task of each ending of a class name; transformers 5 has no pipeline for the last."""

AUTO_CLASSES = {
    "text-classification": AutoModelForSequenceClassification,
    "token-classification": AutoModelForTokenClassification,
    "fill-mask": AutoModelForMaskedLM,
    "text2text-generation": AutoModelForSeq2SeqLM,
}
"""The Auto class of each task."""


def task_of(architectures: Sequence[str] | None) -> str | None:
    """Find the task of a model.

    Args:
        architectures: The `architectures` of its configuration.

    Returns:
        The task; None for a model without a head.
    """
    return next((task for ending, task in TASKS.items() if any(name.endswith(ending) for name in architectures or ())), None)


def loading_call(config: PreTrainedConfig, task: str | None, name: str, **settings: object) -> str:
    """Write the call of transformers that loads a model.

    Args:
        config: The configuration of the model.
        task: What it does; where that is no pipeline, its Auto class is called.
        name: What to load.
        **settings: Further arguments.

    Returns:
        Python, without the module.
    """
    values = {key: f'"{value}"' if isinstance(value, str) else repr(value) for key, value in settings.items()}
    more = "".join(f", {key}={value}" for key, value in values.items())
    if task in PIPELINES.values():
        return f'pipeline("{task}", model="{name}"{more})'
    has_head = not any(architecture.endswith("Model") for architecture in config.architectures or ())
    auto_class = "AutoModelForSeq2SeqLM" if config.is_encoder_decoder and has_head else "AutoModel"
    return f'{auto_class}.from_pretrained("{name}"{more})'
