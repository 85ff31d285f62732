"""The recipe as a run reads it, every default filled in: kept beside the model, and compared before a run is resumed."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from hf_maskattn.checkpoints.whole_files import write_whole
from hf_maskattn.data.tokenizer_training import KINDS
from hf_maskattn.recipes.arguments import CONFIGS, ONLY_FOR, ONLY_FOR_STREAMS, settable_fields
from hf_maskattn.recipes.recipe import Recipe, read_recipe
from hf_maskattn.recipes.training_defaults import resolved_training

_MISSING = "nothing"


def resolve_recipe(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Fill in all defaults of a recipe.

    Args:
        recipe: The recipe.

    Returns:
        Its groups, which make the same recipe again when read.
    """
    model = asdict(recipe.model)
    config = model.pop("config")
    if recipe.model.pretrained is None:
        defaults, names = CONFIGS[recipe.model.task](), settable_fields("model", [recipe.model.task])
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
    return groups


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe with all defaults filled in, as YAML that `read_recipe` reads."""
    write_whole(path, yaml.safe_dump(resolve_recipe(recipe), sort_keys=False, allow_unicode=True))


def changed_keys(recipe: Recipe, stored: Path) -> dict[str, tuple[Any, Any]]:
    """Compare a recipe with the one that a run was started with.

    Args:
        recipe: The recipe.
        stored: The `recipe.yaml` of the run.

    Returns:
        Old and new value of each key that differs, by "group.key"; `training.output_dir` is left out.
    """
    old, new = resolve_recipe(read_recipe(stored)), resolve_recipe(recipe)
    changes = {}
    for group, values in new.items():
        for key in values | old[group]:
            pair = old[group].get(key, _MISSING), values.get(key, _MISSING)
            if pair[0] != pair[1] and key != "output_dir":
                changes[f"{group}.{key}"] = pair
    return changes
