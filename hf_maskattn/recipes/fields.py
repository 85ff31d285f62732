"""The keys that a recipe may set: their types, checks of keys and values, and suggestions for misspelled keys.

Types are read from the source of the dataclasses, so that a recipe is checked without importing torch.
"""

import ast
import builtins
import dataclasses
import difflib
import pathlib
import types
import typing
from collections.abc import Collection, Iterable
from enum import Enum
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from huggingface_hub.dataclasses import type_validator

from hf_maskattn.recipes.arguments import (
    NOT_IN_A_RECIPE,
    DataArguments,
    ModelArguments,
    OwnTrainingArguments,
    TeacherArguments,
    TuningArguments,
)
from hf_maskattn.tasks import TASKS

TRAINING = ("transformers.training_args", "TrainingArguments")
GENERATION_TRAINING = ("transformers.training_args_seq2seq", "Seq2SeqTrainingArguments")
WARMUP_RATIO = "warmup_ratio"
"""A key of `training` that is not a field of `TrainingArguments`, but of those of transformers 4."""

_ANY_CONFIG = ("transformers.configuration_utils", "PreTrainedConfig")
_ARGUMENTS: dict[str, type] = {
    "model": ModelArguments,
    "data": DataArguments,
    "teacher": TeacherArguments,
    "training": OwnTrainingArguments,
    "tuning": TuningArguments,
}

ONLY_FOR: dict[tuple[str, str], list[str]] = {}
"""Tasks that support a key, by (group, key), for the keys that some tasks do not support."""
for _task in TASKS.values():
    for _group, _keys in {"model": _task.model_keys, "data": _task.data_keys, "training": _task.training_keys}.items():
        for _key in _keys:
            ONLY_FOR.setdefault((_group, _key), []).append(_task.name)


def settable_fields(group: str, tasks: Iterable[str] = tuple(TASKS)) -> dict[str, Any]:
    """Return the fields that a group of a recipe may set.

    Args:
        group: "model", "data", "teacher", "training" or "tuning".
        tasks: Include the fields that at least one of these tasks has. `ONLY_FOR` is not applied.

    Returns:
        Type of each field, by name. If the types differ between tasks, their union.
    """
    sources: list[dict[str, Any]] = [{item.name: item.type for item in dataclasses.fields(_ARGUMENTS[group])}]
    if group == "training":
        sources = [declared_fields(*TRAINING), {WARMUP_RATIO: float}, *sources]
        if any(TASKS[task].generates for task in tasks):
            sources.append(declared_fields(*GENERATION_TRAINING))
    elif group == "model":
        sources += map(config_fields, tasks)
    fields: dict[str, Any] = {}
    for source in sources:
        for name, annotation in source.items():
            if name != "config" and name not in NOT_IN_A_RECIPE[group]:
                fields[name] = Union[fields[name], annotation] if name in fields else annotation  # noqa: UP007 (built from values)
    return fields


def config_fields(task: str) -> dict[str, Any]:
    """Return the types of the fields that the configuration of a task adds to `PreTrainedConfig`."""
    path = TASKS[task].config_class
    inherited = declared_fields(*_ANY_CONFIG)
    return {name: annotation for name, annotation in declared_fields(path.module, path.name).items() if name not in inherited}


@cache
def declared_fields(module: str, class_name: str) -> dict[str, Any]:
    """Return the fields that a dataclass declares in its own body, without importing its module.

    Args:
        module: Full name of the module. Only its top-level package is looked up, and none is imported.
        class_name: Name of the class.

    Returns:
        Type of each field, by name, in the order of the source. An enum has the values of the source. Any other class is
        an empty class of that name, so that no value of a file is an instance. An annotation that cannot be evaluated is
        `Any`; the dataclass itself then checks the value.
    """
    fields = {}
    for node in class_definition(module, class_name).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            annotation = _evaluate(node.annotation, module)
            if get_origin(annotation) is not typing.ClassVar:
                fields[node.target.id] = annotation
    return fields


def class_definition(module: str, class_name: str) -> ast.ClassDef:
    """Return the syntax tree of a class, without importing its module."""
    for node in _parse(module).body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            return node
    raise ImportError(
        f"{module} must define the class {class_name}. Install the version of the package that this one supports."
    )


@cache
def _parse(module: str) -> ast.Module:
    package, *rest = module.split(".")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{package} is not installed. Install it with pip.")
    path = Path(spec.submodule_search_locations[0], *rest).with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def _evaluate(annotation: ast.expr, module: str) -> Any:
    try:
        return eval(ast.unparse(annotation), {}, _Namespace(module))
    except (AttributeError, TypeError):
        return Any


class _Namespace(dict):
    """The names that the annotations of a module may use."""

    def __init__(self, module: str):
        super().__init__({"Path": pathlib.Path, **vars(typing), **vars(builtins)})
        self._module = module

    def __missing__(self, name: str) -> type:
        """Look up a class in the module, or in the sibling that the module imports it from."""
        for node in ast.walk(_parse(self._module)):
            if isinstance(node, ast.ClassDef) and node.name == name:
                return _enum(node) or type(name, (), {})
            if isinstance(node, ast.ImportFrom) and node.level == 1 and name in {alias.name for alias in node.names}:
                sibling = f"{self._module.rpartition('.')[0]}.{node.module}"
                return _enum(class_definition(sibling, name)) or type(name, (), {})
        return type(name, (), {})


def _enum(node: ast.ClassDef) -> type | None:
    values = {
        item.targets[0].id: item.value.value
        for item in node.body
        if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name) and isinstance(item.value, ast.Constant)
    }
    is_enum = any(isinstance(base, ast.Name) and base.id.endswith("Enum") for base in node.bases)
    return typing.cast(type, Enum(node.name, values)) if is_enum else None


_MAX_LISTED = 40
_MAX_SUGGESTIONS = 3
_TYPO_CUTOFF = 0.8
_PART_CUTOFF = 0.4
"""Cutoffs of `difflib`, chosen on 100 realistic keys: at 0.7, one suggestion in ten has another meaning than the key."""

_OTHER_NAMES = {
    "learning_rate": ("lr", "base_lr"),
    "weight_decay": ("wd",),
    "num_train_epochs": ("epoch", "n_epochs", "max_epochs"),
    "max_steps": ("num_steps", "total_steps"),
    "per_device_train_batch_size": ("batch_size", "mini_batch_size", "bs"),
    "max_grad_norm": ("grad_clip", "gradient_clip_val", "gradient_clipping", "clip_grad_norm"),
    "gradient_checkpointing": ("activation_checkpointing",),  # which transformers has since 5.23
    "gradient_accumulation_steps": ("accumulate_grad_batches", "grad_accum"),
    "seed": ("random_seed", "random_state", "manual_seed"),
    "metric_for_best_model": ("monitor", "best_metric"),
    "use_cpu": ("no_cuda",),
    "train_sampling_strategy": ("group_by_length",),
    "hidden_size": ("hidden_dim", "n_hidden", "hidden_units"),
    "embedding_size": ("embed_dim", "emb_size"),
    "num_hidden_layers": ("n_layers",),
    "num_attention_heads": ("n_heads",),
    "rnn_type": ("cell_type", "rnn_cell"),
    "pretrained": ("model_name", "model_name_or_path", "checkpoint"),
    "source": ("dataset", "dataset_name", "path"),
    "train_file": ("train_path",),
    "validation_file": ("dev_file", "validation_path"),
    "validation_split": ("dev_split",),
    "validation_fraction": ("val_fraction", "dev_fraction"),
    "test_file": ("test_path",),
    "csv_separator": ("sep", "delimiter"),
    "vocab_size": ("vocab", "vocabulary_size"),
}
_RENAMED = {other: name for name, others in _OTHER_NAMES.items() for other in others}
"""Names of fields in other libraries and in other versions of transformers."""


def check_key(group: str, key: str, valid: Iterable[str]) -> None:
    """Check that a key exists.

    Raises:
        ValueError: If it does not. The message suggests similar keys, or lists the keys that exist.
    """
    valid = sorted(valid)
    if key in valid:
        return
    near = _same_key_elsewhere(group, key) or [f"{group}.{name}" for name in nearest_keys(key, valid)]
    if near:
        advice = f"Did you mean {' or '.join(near)}?"
    elif len(valid) <= _MAX_LISTED:
        advice = f"Use one of {', '.join(valid)}."
    else:
        advice = "Use a field of transformers.TrainingArguments."
    raise ValueError(f"{group}.{key} does not exist. {advice}")


def _same_key_elsewhere(group: str, key: str) -> list[str]:
    """Return the key of another group that has this name, here or in other libraries, unless this group has such a key."""
    written = _normalize(key)
    name = _RENAMED.get(written, written)
    if name in settable_fields(group):
        return []
    return [f"{other}.{name}" for other in ("training", "model", "data") if name in settable_fields(other)]


def _normalize(key: str) -> str:
    return key.lower().replace("-", "_")


def nearest_keys(key: str, valid: Collection[str]) -> list[str]:
    """Return the keys that exist and that a wrong key may stand for.

    Returns:
        The new name of a renamed key, or at most three keys that it is a misspelling or a part of, the most similar first.
    """
    written = _normalize(key)
    if _RENAMED.get(written) in valid:
        return [_RENAMED[written]]
    misspelled = difflib.get_close_matches(written, valid, n=1, cutoff=_TYPO_CUTOFF)
    words = set(written.split("_"))
    parts = [name for name in valid if words <= set(name.split("_")) or name.startswith(written) or written.startswith(name)]
    return difflib.get_close_matches(written, {*misspelled, *parts}, n=_MAX_SUGGESTIONS, cutoff=_PART_CUTOFF)


def suggestion(value: str, choices: Iterable[str]) -> str | None:
    """Return the choice that a value is a misspelling of, or None."""
    return next(iter(difflib.get_close_matches(value.lower(), list(choices), n=1, cutoff=_TYPO_CUTOFF)), None)


def check_dataset_name(name: str | None) -> None:
    """Check that `data.name`, which a published card shows, is not a path.

    Raises:
        ValueError: If it is, or is empty.
    """
    if name is None:
        return
    is_path = name.startswith(("/", ".", "~")) or "\\" in name or ("/" in name and Path(name).exists())
    if is_path or not name.strip():
        raise ValueError(
            f"data.name must be a name to show in the model card and not a path, got {name!r}. Use a title, or the name of a "
            "dataset on the Hub, such as user/dataset."
        )


def check_value(group: str, key: str, value: Any, annotation: Any) -> None:
    """Check that a value has the type of a field. An integer is valid where a float is.

    Raises:
        TypeError: If the value has another type, or is not one of the choices of the field.
    """
    annotation = _values_of_enums(annotation)
    number = float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    for candidate in (value, number):
        try:
            type_validator(key, candidate, annotation)
            return
        except TypeError:
            continue
    raise TypeError(f"{group}.{key} must be {describe_type(annotation)}, got {value!r}.")


def accepts_null(group: str, key: str) -> bool:
    """Return whether a key may be null. One that does not exist may, because its name is reported and not its value."""
    annotations = settable_fields(group)
    return key not in annotations or type(None) in get_args(annotations[key]) or (group, key) == ("teacher", "model")


def _values_of_enums(annotation: Any) -> Any:
    """Replace an enum by a `Literal` of its values, which a file can hold."""
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return Literal[tuple(member.value for member in annotation)]
    if get_origin(annotation) in (Union, types.UnionType):
        members = get_args(annotation)
        if any(isinstance(member, type) and issubclass(member, Enum) for member in members):
            members = tuple(member for member in members if member is not str)
        return Union[tuple(_values_of_enums(member) for member in members)]  # noqa: UP007 (built from a tuple)
    return annotation


_TYPE_NAMES = {str: "a string", int: "an integer", float: "a number", bool: "true or false", list: "a list", dict: "a mapping"}


def describe_type(annotation: Any) -> str:
    """Return the type of a field in words, such as "an integer or null"."""
    annotation = _values_of_enums(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        members = get_args(annotation)
        if float in members:
            members = tuple(member for member in members if member is not int)
        return " or ".join(dict.fromkeys(describe_type(member) for member in members))
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(annotation))
    if get_origin(annotation) is list:
        return f"a list of {describe_type(get_args(annotation)[0]).removeprefix('a ').removeprefix('an ')}s"
    if get_origin(annotation) is dict and get_args(annotation) == (str, str):
        return "a mapping of strings to strings"
    origin = get_origin(annotation) or annotation
    if origin is type(None):
        return "null"
    return _TYPE_NAMES.get(origin, getattr(origin, "__name__", str(origin)))


EXCLUSIVE_KEYS = {WARMUP_RATIO: "warmup_steps", "warmup_steps": WARMUP_RATIO, "seed": "seeds", "seeds": "seed"}
"""Mutually exclusive keys of `training`. An override replaces the other one."""


def replace_warmup_ratio(training: dict[str, Any]) -> None:
    """Replace `warmup_ratio` by a `warmup_steps` below one, which is a ratio too."""
    ratio = training.pop(WARMUP_RATIO, None)
    if ratio is None:
        return
    if not 0 <= ratio < 1:
        raise ValueError(f"training.warmup_ratio must be in [0, 1), got {ratio}.")
    if "warmup_steps" in training:
        raise ValueError("training.warmup_ratio and training.warmup_steps are mutually exclusive. Remove one of them.")
    training["warmup_steps"] = ratio
