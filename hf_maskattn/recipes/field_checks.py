"""Checks values against the typed fields of a dataclass: names the key, what was given, and what would work."""

import difflib
import types
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

from huggingface_hub.dataclasses import type_validator


def check_key(group: str, key: str, valid: Iterable[str]) -> None:
    """Refuse a key that does not exist.

    Raises:
        ValueError: If it does not; names the nearest key that does.
    """
    valid = sorted(valid)
    if key not in valid:
        near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
        advice = f"did you mean {group}.{near[0]}?" if near else f"there are: {', '.join(valid)}."
        raise ValueError(f"{group}.{key} does not exist: {advice}")


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
    raise TypeError(f"{group}.{key}={value!r}: expected {_describe(annotation)}.")


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


def _describe(annotation: Any) -> str:
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_describe(member) for member in get_args(annotation)))
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(annotation))
    if get_origin(annotation) is list:
        return f"a list of {_describe(get_args(annotation)[0])}"
    origin = get_origin(annotation) or annotation
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list", dict: "a mapping"}
    if origin is type(None):
        return "null"
    return words.get(origin, getattr(origin, "__name__", str(origin)))
