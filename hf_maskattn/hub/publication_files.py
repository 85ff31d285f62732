"""What of a model folder is published: the model, its code, its tokenizer, what is known about it, and nothing else."""

import json
import re
import shutil
from pathlib import Path
from types import ModuleType

import yaml
from safetensors import SafetensorError, safe_open
from transformers.dynamic_module_utils import get_relative_import_files

from hf_maskattn.auto import FAMILIES, load_family
from hf_maskattn.hub.model_card import read_model_card
from hf_maskattn.loading import newest_checkpoint, use_checkpoint
from hf_maskattn.model.remote_code import CODE_VERSION, install_command, is_newer_version

CARD_FILE = "README.md"
CONFIG_FILE = "config.json"
RECIPE_FILE = "recipe.yaml"
_WEIGHTS_FILE = "model.safetensors"
_INDEX_FILE = "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_TOKENIZER_FILE = "tokenizer.json"
_WHERE_THERE = (
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "attention.png",
    "metrics.json",
    RECIPE_FILE,
    CARD_FILE,
)
_OTHER_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|pytorch_model.*|training_args\.bin")


def copy_what_is_published(folder: Path, target: Path) -> None:
    """Copy the files of a model folder that are published, with the code of this package.

    That code, not what lies in the folder, is what the model was loaded with here; it is also known to be harmless to run.

    Args:
        folder: What `save_pretrained` of model and tokenizer, or a training run, wrote.
        target: An empty folder.

    Raises:
        FileNotFoundError: If there is no such folder, or no configuration, weights or tokenizer in it.
        ValueError: If they are broken, not of a model of this package, or of a newer version of it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: name one that a training run or save_pretrained wrote.")
    checkpoint = newest_checkpoint(folder)
    way_out = "save the model there with save_pretrained" if checkpoint is None else use_checkpoint(checkpoint)
    config = _read_json(_require(folder, CONFIG_FILE, way_out))
    _check_config(folder, config)
    configurations, models = load_family(config["model_type"])
    config |= {"auto_map": dict(configurations.AUTO_MAP), "code_version": CODE_VERSION}
    (target / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    _require(folder, _TOKENIZER_FILE, "save the tokenizer there with save_pretrained")
    names = [*_weights(folder), _TOKENIZER_FILE, *(name for name in _WHERE_THERE if (folder / name).is_file())]
    for name in names:
        shutil.copyfile(folder / name, target / name)
    for source in code_files(models):
        shutil.copyfile(source, target / source.name)
    if (target / RECIPE_FILE).is_file():
        _name_files_only(target / RECIPE_FILE)
    if (target / CARD_FILE).is_file():
        read_model_card((target / CARD_FILE).read_text(encoding="utf-8"))


def _name_files_only(recipe: Path) -> None:
    """Replace the absolute paths of a recipe by the names of the files: where they lie on this machine concerns nobody else."""
    try:
        groups = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{recipe.name} is not YAML: {' '.join(str(error).split())}") from error
    for values in groups.values() if isinstance(groups, dict) else ():
        for key, value in values.items() if isinstance(values, dict) else ():
            # A label or a separator may be a slash.
            if isinstance(value, str) and Path(value).is_absolute() and len(Path(value).parts) > 2:
                values[key] = Path(value).name
    recipe.write_text(yaml.safe_dump(groups, sort_keys=False, allow_unicode=True), encoding="utf-8")


def code_files(models: ModuleType) -> list[Path]:
    """List the code that travels with a model: what `save_pretrained` puts beside the weights.

    Args:
        models: The file of its class.
    """
    modeling = Path(str(models.__file__))
    return [modeling, *(Path(path) for path in get_relative_import_files(modeling))]


def is_left_over(name: str, published: set[str]) -> bool:
    """Tell whether a file of a repository belongs to the model that a publication replaces.

    Other weights would be loaded in the place of the new ones; pickles are never published.

    Args:
        name: Path of the file in the repository.
        published: The files of the new model.
    """
    return name not in published and _OTHER_WEIGHTS.fullmatch(name) is not None


def _check_config(folder: Path, config: object) -> None:
    if not isinstance(config, dict):
        raise ValueError(f"{folder / CONFIG_FILE} is no configuration of a model.")
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        raise ValueError(f"{folder} holds a {model_type!r} model, only {' and '.join(FAMILIES)} models are published here.")
    if is_newer_version(config.get("code_version")):
        raise ValueError(
            f"{folder} was saved by hf_maskattn {config['code_version']}, this is {CODE_VERSION}: "
            f"{install_command(upgrade=True)}, so that the model is published with its code."
        )


def _weights(folder: Path) -> list[str]:
    """List the files of the weights, after a look at each: the header must fit the size."""
    if (folder / _WEIGHTS_FILE).is_file():
        names = [_WEIGHTS_FILE]
    elif (folder / _INDEX_FILE).is_file():
        try:
            shards = sorted(set(_read_json(folder / _INDEX_FILE)["weight_map"].values()))
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder / _INDEX_FILE} names no files of weights.") from error
        for name in shards:
            if not (isinstance(name, str) and _SHARD.fullmatch(name)):
                raise ValueError(
                    f"{folder / _INDEX_FILE} names {name!r}, expected names like model-00001-of-00002.safetensors."
                )
            _require(folder, name, "save the model there again with save_pretrained")
        names = [_INDEX_FILE, *shards]
    else:
        _require(folder, _WEIGHTS_FILE, "save the model there with save_pretrained; pickled weights (.bin) are not published")
    for name in names:
        if name != _INDEX_FILE:
            _check_weights(folder / name)
    return names


def _check_weights(path: Path) -> None:
    try:
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole file of weights ({error}): save the model again.") from error


def _require(folder: Path, name: str, way_out: str) -> Path:
    if not (folder / name).is_file():
        raise FileNotFoundError(f"{folder} has no {name}: {way_out}.")
    return folder / name


def _read_json(path: Path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}).") from error
