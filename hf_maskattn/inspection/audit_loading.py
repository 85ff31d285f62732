"""Loads any model with the head that it was saved with, and its tokenizer."""

from pathlib import Path
from typing import Any

import transformers
from transformers import AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hf_maskattn.loading.model_files import has_file
from hf_maskattn.loading.model_loading import load_config, load_whole_model
from hf_maskattn.loading.weight_shapes import in_one_line
from hf_maskattn.registration import register


def load_model(name_or_folder: str | Path, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """Load a model as the class that its configuration names, as the bare model if it names none that is known.

    Args:
        name_or_folder: Folder that `save_pretrained` wrote, or a name on the Hub.
        trust_remote_code: Whether to run code that lies beside the weights.

    Returns:
        The model.

    Raises:
        FileNotFoundError: If there is no such folder or name, or the Hub cannot be reached.
        ValueError: If it is no model of transformers, would run code that is not trusted, or its weights are no safetensors
            or damaged.
    """
    config = load_config(name_or_folder, trust_remote_code=trust_remote_code)
    # Of the implementations of attention only eager, which is what is loaded, returns the weights that two checks look at.
    return load_whole_model(_class_for(config), name_or_folder, config, trust_remote_code=trust_remote_code)


def load_tokenizer_if_any(name_or_folder: str | Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase | None:
    """Load the tokenizer beside a model; None if there is none.

    Args:
        name_or_folder: As in `load_model`.
        trust_remote_code: As in `load_model`.

    Returns:
        The tokenizer or None.

    Raises:
        OSError: If the Hub does not say whether there is one.
        ValueError: If there is one that cannot be loaded.
    """
    register()
    # Where there are no files, AutoTokenizer makes up a tokenizer that knows no word.
    if not has_file(name_or_folder, "tokenizer_config.json"):
        return None
    try:
        return AutoTokenizer.from_pretrained(name_or_folder, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise ValueError(f"the tokenizer of {name_or_folder} cannot be loaded: {in_one_line(error)}.") from error


def _class_for(config: PreTrainedConfig) -> Any:
    """Find what loads the class that a configuration names: an Auto class for code that lies outside of transformers."""
    name = next(iter(config.architectures or ()), "")
    for auto_name, path in (getattr(config, "auto_map", None) or {}).items():
        if str(path).endswith(f".{name}") and hasattr(transformers, auto_name):
            return getattr(transformers, auto_name)
    return getattr(transformers, name, AutoModel)
