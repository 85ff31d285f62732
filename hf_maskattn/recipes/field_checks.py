"""Checks values against the typed fields of a dataclass: names the key, what was given, and what would work."""

import difflib
import types
from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

from huggingface_hub.dataclasses import type_validator

_MOST_LISTED = 40
_MOST_SUGGESTED = 3
_MISSPELLED = 0.8
_SHORTENED = 0.4
"""Cutoffs of `difflib`, tried on 100 realistic keys: at 0.7, one in ten suggestions for a misspelling has another meaning."""

_RENAMED = {
    "lr": "learning_rate",
    "warmup_ratio": "warmup_steps",
    "no_cuda": "use_cpu",
    "group_by_length": "train_sampling_strategy",
}
"""What fields are called elsewhere, or were called by earlier versions of transformers."""


def check_key(group: str, key: str, valid: Iterable[str]) -> None:
    """Refuse a key that does not exist.

    Raises:
        ValueError: If it does not; suggests keys that are near, or lists those that there are.
    """
    valid = sorted(valid)
    if key in valid:
        return
    near = [f"{group}.{name}" for name in nearest_keys(key, valid)]
    if near:
        advice = f"did you mean {' or '.join(near)}?"
    elif len(valid) <= _MOST_LISTED:
        advice = f"there are: {', '.join(valid)}."
    else:
        advice = "its keys are the fields of transformers.TrainingArguments."
    raise ValueError(f"{group}.{key} does not exist: {advice}")


def nearest_keys(key: str, valid: Collection[str]) -> list[str]:
    """Suggest keys for one that does not exist.

    Args:
        key: The key that was given.
        valid: The keys that exist.

    Returns:
        The key that replaces it, or at most three keys, the nearest first, that it is a misspelling or a part of.
    """
    written = key.lower().replace("-", "_")
    if _RENAMED.get(written) in valid:
        return [_RENAMED[written]]
    misspelled = difflib.get_close_matches(written, valid, n=1, cutoff=_MISSPELLED)
    words = set(written.split("_"))
    parts = [name for name in valid if words <= set(name.split("_")) or name.startswith(written) or written.startswith(name)]
    return difflib.get_close_matches(written, {*misspelled, *parts}, n=_MOST_SUGGESTED, cutoff=_SHORTENED)


def suggestion(value: str, choices: Iterable[str]) -> str | None:
    """Name the choice that a value is a misspelling of, if there is one."""
    return next(iter(difflib.get_close_matches(value.lower(), list(choices), n=1, cutoff=_MISSPELLED)), None)


def check_value(group: str, key: str, value: Any, annotation: Any) -> None:
    """Refuse a value that a field does not take; whole numbers are taken for floats.

    Args:
        group: Group of the recipe, for the message.
        key: Name of the field.
        value: What was given.
        annotation: Type of the field.

    Raises:
        TypeError: If the value has another type, or is none of the field's choices.
    """
    annotation = _as_written(annotation)
    number = float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    for candidate in (value, number):
        try:
            type_validator(key, candidate, annotation)
            return
        except TypeError:
            continue
    raise TypeError(f"{group}.{key}={value!r}: expected {describe(annotation)}.")


def check_fields(group: str, values: Mapping[str, Any], annotations: Mapping[str, Any]) -> None:
    """Check all keys and values of a group; see `check_key` and `check_value`."""
    for key, value in values.items():
        check_key(group, key, annotations)
        check_value(group, key, value, annotations[key])


def _as_written(annotation: Any) -> Any:
    """Replace an enum by its values: these are what a file can say."""
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return Literal[tuple(member.value for member in annotation)]
    if get_origin(annotation) in (Union, types.UnionType):
        members = get_args(annotation)
        if any(isinstance(member, type) and issubclass(member, Enum) for member in members):
            members = tuple(member for member in members if member is not str)
        return Union[tuple(_as_written(member) for member in members)]  # noqa: UP007 (built from a tuple)
    return annotation


def describe(annotation: Any) -> str:
    """Say in words what a field takes, such as "a whole number or null"."""
    annotation = _as_written(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe(member) for member in get_args(annotation)))
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(annotation))
    if get_origin(annotation) is list:
        return f"a list of {describe(get_args(annotation)[0])}"
    origin = get_origin(annotation) or annotation
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list", dict: "a mapping"}
    if origin is type(None):
        return "null"
    return words.get(origin, getattr(origin, "__name__", str(origin)))
