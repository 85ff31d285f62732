"""The model of a recipe: new, or from a pretrained one."""

from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hf_maskattn.auto import register
from hf_maskattn.loading import (
    Shapes,
    build_meta_model,
    check_weights_match,
    list_differing_weights,
    load_config,
    load_verified_model,
    weight_shapes,
)
from hf_maskattn.recipes.arguments import ModelArguments, config_class
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.tasks import AUTO_CLASSES


def check_model(arguments: ModelArguments) -> None:
    """Refuse a configuration that no model can be built from, before data is read.

    Args:
        arguments: The group `model` of a recipe. The fields of a pretrained model are checked when it is loaded.

    Raises:
        ValueError: If a field has no such value, or fields exclude each other; names them.
    """
    if arguments.pretrained is not None:
        return
    try:
        config_class(arguments.task)(**arguments.config)
    except StrictDataclassError as error:
        raise ValueError(f"model.{error.__cause__}") from error


def build_model(
    arguments: ModelArguments, tokenizer: PreTrainedTokenizerBase, labels: list[str] | None, tag_scheme: str | None = None
) -> PreTrainedModel:
    """Build the model of a recipe, with random weights, or those of `pretrained` and a new head where tasks differ.

    Args:
        arguments: The `model` group of the recipe.
        tokenizer: The tokenizer it reads with.
        labels: Names of the labels by id; None for regression and masked language modeling.
        tag_scheme: Scheme of the tags of the data, for the configuration.

    Returns:
        The model.

    Raises:
        ValueError: If a field has no meaning together with others, or does not fit the pretrained weights, or these are no
            safetensors or damaged.
        OSError: If there is no such pretrained model.
    """
    auto_class = AUTO_CLASSES[arguments.task]
    settings = {**arguments.config, **_head(arguments, labels)}
    if arguments.task != "text2text-generation":
        settings["tag_scheme"] = tag_scheme
    if arguments.pretrained is None:
        register()
        return auto_class.from_config(config_class(arguments.task)(**settings, **_vocabulary(arguments, tokenizer)))
    own, model_type = load_config(arguments.pretrained), config_class(arguments.task).model_type
    if own.model_type != model_type:
        raise ValueError(
            f"model.pretrained={arguments.pretrained} is a {own.model_type!r} model, for model.task={arguments.task} only "
            f"{model_type!r} models are trained here."
        )
    shapes = weight_shapes(arguments.pretrained)
    encoder = _encoder(auto_class, own, shapes, arguments)
    check_weights_match(encoder, shapes, arguments.pretrained)
    config = load_config(arguments.pretrained, **settings)
    misfits = list_differing_weights(encoder, _encoder(auto_class, config, shapes, arguments))
    if misfits:
        raise ValueError(
            f"model.pretrained={arguments.pretrained} has other sizes than the recipe in {', '.join(misfits)}: remove "
            f"{', '.join(f'model.{key}' for key in arguments.config)}."
        )
    # A head of another task or of other labels is made anew; anything else has to fit.
    return load_verified_model(auto_class, arguments.pretrained, config, new_head=True)


def set_generation(model: PreTrainedModel, recipe: Recipe, max_target_length: int | None) -> None:
    """Have a model that writes texts write them as it is scored, also where nobody says how: `generate(**inputs)`.

    Args:
        model: The model; one that writes no texts is left alone.
        recipe: The recipe.
        max_target_length: Longest target, in tokens; None for a model that writes no texts.
    """
    if max_target_length is None:
        return
    longest, beams = (recipe.training.get(f"generation_{name}") for name in ("max_length", "num_beams"))
    # The token that the decoder starts from counts.
    model.generation_config.max_length = max_target_length + 1 if longest is None else longest
    model.generation_config.num_beams = 1 if beams is None else beams


def _vocabulary(arguments: ModelArguments, tokenizer: PreTrainedTokenizerBase) -> dict[str, int | None]:
    vocabulary = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if arguments.task != "text2text-generation":
        return vocabulary
    start = tokenizer.pad_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return {**vocabulary, **ends, "decoder_start_token_id": start}


def _encoder(auto_class: Any, config: PreTrainedConfig, shapes: Shapes, arguments: ModelArguments) -> PreTrainedModel:
    return build_meta_model(auto_class._model_mapping[type(config)], config, shapes, str(arguments.pretrained)).base_model


def _head(arguments: ModelArguments, labels: list[str] | None) -> dict[str, Any]:
    if arguments.task in ("fill-mask", "text2text-generation"):
        return {}
    if labels is None:
        return {"num_labels": 1, "problem_type": arguments.problem_type}
    head: dict[str, Any] = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    if arguments.task == "text-classification":
        head["problem_type"] = arguments.problem_type or "single_label_classification"
    return head
