"""The recipe as a run reads it, every default filled in: kept beside the model, and compared before a run is resumed."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from hf_maskattn.checkpoints.whole_files import write_whole
from hf_maskattn.data.loading import BUILT_IN
from hf_maskattn.data.tokenizer_kinds import KINDS
from hf_maskattn.recipes.arguments import ONLY_FOR, ONLY_FOR_STREAMS, config_class, settable_fields
from hf_maskattn.recipes.recipe import Recipe, read_recipe
from hf_maskattn.recipes.training_defaults import resolved_training

_MISSING = "nothing"

_FILES = ("train_file", "validation_file", "test_file", "output_dir")
"""Keys whose values are paths in any case."""

_NAMES_OR_PATHS = ("source", "tokenizer", "pretrained", "accelerator_config", "deepspeed", "fsdp_config", "generation_config")
"""Keys whose values are paths where there is such a file or folder, else names on the Hub or something else."""


def resolve_recipe(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Fill in all defaults of a recipe.

    Args:
        recipe: The recipe.

    Returns:
        Its groups, which make the same recipe again when read, from any directory: paths are absolute.
    """
    model = asdict(recipe.model)
    config = model.pop("config")
    if recipe.model.pretrained is None:
        defaults, names = config_class(recipe.model.task)(), settable_fields("model", [recipe.model.task])
        config = {name: config.get(name, getattr(defaults, name)) for name in names if name not in model}
    data = asdict(recipe.data)
    if data["tokenizer"] not in KINDS:
        del data["vocab_size"], data["lowercase"]
    if not recipe.data.streaming:
        for key in ONLY_FOR_STREAMS:
            del data[key]
    data["label_column"] = recipe.label_column
    groups = {"model": {**model, **config}, "data": data, "training": resolved_training(recipe)}
    for (group, key), tasks in ONLY_FOR.items():
        if recipe.model.task not in tasks:
            del groups[group][key]
    return {group: {key: _absolute(key, value) for key, value in values.items()} for group, values in groups.items()}


def _absolute(key: str, value: Any) -> Any:
    is_path = isinstance(value, str) and (
        key in _FILES or (key in _NAMES_OR_PATHS and value not in BUILT_IN and value not in KINDS and Path(value).exists())
    )
    return os.path.abspath(value) if is_path else value


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe with all defaults filled in, as YAML that `read_recipe` reads."""
    write_whole(path, yaml.safe_dump(resolve_recipe(recipe), sort_keys=False, allow_unicode=True))


def changed_keys(recipe: Recipe, stored: Path) -> dict[str, tuple[Any, Any]]:
    """Compare a recipe with the one that a run was started with.

    Args:
        recipe: The recipe.
        stored: The `recipe.yaml` of the run.

    Returns:
        Old and new value of each key that differs, by "group.key"; `training.output_dir` is left out. A file that lies where
        it lay, or lies there as seen from the folder of the run, is the same: a project may be moved or mounted elsewhere.
    """
    old, new = resolve_recipe(read_recipe(stored)), resolve_recipe(recipe)
    old_folder = old["training"]["output_dir"]
    changes = {}
    for group, values in new.items():
        for key in values | old[group]:
            pair = old[group].get(key, _MISSING), values.get(key, _MISSING)
            is_moved = key in (*_FILES, *_NAMES_OR_PATHS) and _moved(pair[0], old_folder, stored.parent) == pair[1]
            if pair[0] != pair[1] and key != "output_dir" and not is_moved:
                changes[f"{group}.{key}"] = pair
    return changes


def _moved(value: Any, old_folder: str, folder: Path) -> Any:
    """Give the path that lies as seen from `folder` where an absolute path lies as seen from `old_folder`."""
    if not (isinstance(value, str) and os.path.isabs(value)):
        return value
    return os.path.abspath(folder / os.path.relpath(value, old_folder))
