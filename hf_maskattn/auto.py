"""What makes `Auto*.from_pretrained` find these models, and saved folders carry their code."""

from types import ModuleType

import transformers

from hf_maskattn.model import configuration_maskattn, configuration_rnnsearch, modeling_maskattn, modeling_rnnsearch
from hf_maskattn.tokenization import MaskAttnTokenizer

FAMILIES = ((configuration_maskattn, modeling_maskattn), (configuration_rnnsearch, modeling_rnnsearch))


def families_by_model_type() -> dict[str, tuple[ModuleType, ModuleType]]:
    """Name the file of the configuration and that of the models for each `model_type` of a `config.json`."""
    classes = [getattr(family[0], family[0].AUTO_MAP["AutoConfig"].rpartition(".")[2]) for family in FAMILIES]
    return {config_class.model_type: family for config_class, family in zip(classes, FAMILIES, strict=True)}


def register() -> None:
    """Register every public class with its Auto class, in the library and for saving with the weights.

    The class of the tokenizers is registered in the library alone: without it, `AutoTokenizer` takes the one of transformers.

    Source: `AUTO_MAP` of each configuration file, which is also what a saved `config.json` tells a loader.
    """
    for configurations, models in FAMILIES:
        for auto_name, path in configurations.AUTO_MAP.items():
            auto_class, class_name = getattr(transformers, auto_name), path.rpartition(".")[2]
            if auto_name == "AutoConfig":
                config_class = getattr(configurations, class_name)
                auto_class.register(config_class.model_type, config_class)
                config_class.register_for_auto_class(auto_name)
                transformers.AutoTokenizer.register(config_class, MaskAttnTokenizer, exist_ok=True)
            else:
                model_class = getattr(models, class_name)
                auto_class.register(model_class.config_class, model_class)
                model_class.register_for_auto_class(auto_name)
