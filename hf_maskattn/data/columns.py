"""Whether a split has the columns that a task needs."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import datasets
from datasets import Dataset

from hf_maskattn.data.labels import item_feature
from hf_maskattn.data.places import Place, Places
from hf_maskattn.data.shards import Shards
from hf_maskattn.data.table_reading import separator_hint


def check_columns(
    split_name: str,
    split: Dataset | Shards,
    required_columns: Mapping[str, str] | Sequence[str],
    places: Places | None = None,
) -> None:
    """Check that a split has the columns that are needed, each with values of one type.

    Args:
        split_name: Name of the split.
        split: The split.
        required_columns: The columns; with the keys that name them, for error messages.
        places: Where the rows stand, for error messages.

    Raises:
        ValueError: Columns are missing, or one of them has values of different types.
    """
    missing = [column for column in required_columns if column not in split.column_names]
    if missing:
        raise ValueError(_missing(split_name, missing, split.column_names, required_columns))
    for column in required_columns:
        if _holds_json(split.features[column]):
            rows = split if isinstance(split, Dataset) else split.first_rows(10_000)
            places = places or (Places(split.files) if isinstance(split, Shards) else None)
            raise _mixed(split_name, column, rows[column], places or Places())


def _missing(split_name: str, missing: Sequence[str], names: Sequence[str], required: Mapping[str, str] | Sequence[str]) -> str:
    lacks = " and ".join(f"no column {column!r}{nearest(column, names)}" for column in missing)
    text = f"the split {split_name!r} has {lacks}; its columns are {', '.join(names)}"
    hint = separator_hint(names)
    if hint is not None:
        return f"the split {split_name!r} has {lacks}; {hint}"
    if isinstance(required, Mapping):
        keys = dict.fromkeys(f"{required[column]}=..." for column in missing)
        text += f". Name the columns that it has: {', '.join(keys)}"
    return text


def _holds_json(feature: Any) -> bool:
    return isinstance(item_feature(feature) or feature, datasets.Json)


def _mixed(split_name: str, column: str, values: Iterable[Any], places: Places) -> ValueError:
    """Name the first value that is of another type than the values before it, or that is no text, number or list."""
    first: dict[str, tuple[Place, Any]] = {}
    for row, value in enumerate(values):
        for item in value if isinstance(value, list) and value else [value]:
            kind = _name_kind(value, item)
            if kind is None:
                continue
            first.setdefault(kind, (places(row), item))
            if len(first) == 2 or "an object" in kind:
                (kind, (place, item)), *others = reversed(first.items())
                before = "".join(f", where {at} has {other!r}, {name}" for name, (at, other) in others)
                return ValueError(
                    f"{place}: the column {column!r} of the split {split_name!r} must hold values of one type, texts or "
                    f"numbers or lists of them, got {item!r}, {kind}{before}. Write all of them in the same way."
                )
    return ValueError(f"the column {column!r} of the split {split_name!r} must hold texts, numbers or lists of them.")


def _name_kind(value: Any, item: Any) -> str | None:
    names = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    if item is None:
        return None
    return f"{names[type(item)]} in a list" if isinstance(value, list) and value else names[type(item)]


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Ask whether the nearest of some names was meant; empty if none is near."""
    matches = difflib.get_close_matches(name, list(candidates), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
