"""The model of a recipe: new, or from a pretrained one."""

from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from hf_maskattn.model.configuration_maskattn import MaskAttnConfig
from hf_maskattn.registration import register
from hf_maskattn.training.arguments import ModelArguments

AUTO_CLASSES = {
    "text-classification": AutoModelForSequenceClassification,
    "token-classification": AutoModelForTokenClassification,
    "fill-mask": AutoModelForMaskedLM,
}
"""The Auto class of each task."""


def build_model(arguments: ModelArguments, tokenizer: PreTrainedTokenizerBase, labels: list[str] | None) -> PreTrainedModel:
    """Build the model of a recipe, with random weights, or those of `pretrained` and a new head where tasks differ.

    Args:
        arguments: The `model` group of the recipe.
        tokenizer: The tokenizer it reads with.
        labels: Names of the labels by id; None for regression and masked language modeling.

    Returns:
        The model.

    Raises:
        ValueError: If a field has no meaning together with others, or does not fit the pretrained weights.
        OSError: If there is no such pretrained model.
    """
    auto_class = AUTO_CLASSES[arguments.task]
    settings = {**arguments.config, **_head(arguments, labels)}
    if arguments.pretrained is None:
        register()
        config = MaskAttnConfig(**settings, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
        return auto_class.from_config(config)
    config = load_config(arguments.pretrained, **settings)
    if config.model_type != MaskAttnConfig.model_type:
        raise ValueError(
            f"model.pretrained={arguments.pretrained} is a {config.model_type!r} model, only "
            f"{MaskAttnConfig.model_type!r} models are trained here."
        )
    # A head of another task or of other labels is made anew; anything else has to fit.
    model, loaded = auto_class.from_pretrained(
        arguments.pretrained, config=config, ignore_mismatched_sizes=True, output_loading_info=True
    )
    misfits = sorted(key[0] for key in loaded["mismatched_keys"] if key[0].startswith(model.base_model_prefix))
    if misfits:
        raise ValueError(
            f"model.pretrained={arguments.pretrained} has other sizes than the recipe in {', '.join(misfits)}: remove "
            f"{', '.join(f'model.{key}' for key in arguments.config)}."
        )
    return model


def load_config(name_or_folder: str | Path, **changes: Any) -> PreTrainedConfig:
    """Load the configuration of a model.

    Args:
        name_or_folder: Folder of the model, or its name on the Hub.
        **changes: Fields to change.

    Returns:
        The configuration.

    Raises:
        FileNotFoundError: If there is no such folder or name, or the Hub cannot be reached.
        ValueError: If it is no model that transformers knows.
    """
    register()
    try:
        return AutoConfig.from_pretrained(name_or_folder, **changes)
    except OSError as error:
        raise FileNotFoundError(
            f"the model {str(name_or_folder)!r} is neither a folder here nor could it be loaded from the Hub: {error}"
        ) from error


def _head(arguments: ModelArguments, labels: list[str] | None) -> dict[str, Any]:
    if arguments.task == "fill-mask":
        return {}
    if labels is None:
        return {"num_labels": 1, "problem_type": arguments.problem_type}
    head: dict[str, Any] = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    if arguments.task == "text-classification":
        head["problem_type"] = arguments.problem_type or "single_label_classification"
    return head
