"""Columns of a split: whether those of a task exist, and the labels in them."""

import difflib
import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, get_args

import datasets
from datasets import ClassLabel, Dataset, LargeList, List

from hf_maskattn.data.files import separator_hint
from hf_maskattn.data.table_reading import RowLocation, RowLocations

if TYPE_CHECKING:
    from hf_maskattn.data.streaming import Shards

logger = logging.getLogger(__name__)

LabelKind = Literal["single", "multi", "tags"]
"""One label per row, any number of labels per row, or one label per word."""

ValueKind = Literal["string", "integer", "boolean", "class label"]

_MAX_ROWS_INSPECTED = 10_000
MAX_LABELS_IN_ERROR = 20


class UnknownLabelError(ValueError):
    """A row has a label that the model does not have."""


def check_columns(
    split_name: str,
    split: "Dataset | Shards",
    required_columns: Mapping[str, str] | Sequence[str],
    locations: RowLocations | None = None,
) -> None:
    """Check that a split has the required columns, each with values of one type.

    The recipe key of each column, if it is given, and the locations of the rows are for error messages.

    Raises:
        ValueError: Columns are missing, or have values of different types.
    """
    missing = [column for column in required_columns if column not in split.column_names]
    if missing:
        raise _missing_columns_error(split_name, missing, split.column_names, required_columns)
    for column in required_columns:
        feature = split.features[column]
        if isinstance(item_feature(feature) or feature, datasets.Json):
            if locations is None:
                locations = RowLocations(() if isinstance(split, Dataset) else split.files)
            rows = split if isinstance(split, Dataset) else split.first_rows(_MAX_ROWS_INSPECTED)
            raise _mixed_types_error(split_name, column, rows[column], locations)


def _missing_columns_error(
    split_name: str, missing: Sequence[str], names: Sequence[str], required: Mapping[str, str] | Sequence[str]
) -> ValueError:
    missing_names = " and ".join(f"no column {column!r}{suggest_name(column, names)}" for column in missing)
    hint = separator_hint(names)
    if hint is not None:
        return ValueError(f"the split {split_name!r} has {missing_names}. {hint}")
    text = f"the split {split_name!r} has {missing_names}; its columns are {', '.join(names)}."
    if isinstance(required, Mapping):
        keys = dict.fromkeys(f"{required[column]}=..." for column in missing)
        text += f" Set the names of the columns: {', '.join(keys)}."
    return ValueError(text)


def _mixed_types_error(split_name: str, column: str, values: Iterable[Any], locations: RowLocations) -> ValueError:
    """Build the error for the first value with another type than earlier values, or with an unsupported type."""
    requirement = f"the column {column!r} of the split {split_name!r} must have values of one type: strings, numbers or lists"
    first_of_type: dict[str, tuple[RowLocation, Any]] = {}
    for row, value in enumerate(values):
        for item in value if isinstance(value, list) and value else [value]:
            type_name = _type_name(value, item)
            if type_name is None:
                continue
            first_of_type.setdefault(type_name, (locations[row], item))
            if len(first_of_type) == 2 or "an object" in type_name:
                (type_name, (location, item)), *others = reversed(first_of_type.items())
                earlier = "".join(f", where {at} has {other!r}, {name}" for name, (at, other) in others)
                return ValueError(
                    f"{location}: {requirement} of them, got {item!r}, {type_name}{earlier}. Convert all values to one type."
                )
    return ValueError(f"{requirement} of them. Convert its values.")


def _type_name(value: Any, item: Any) -> str | None:
    names = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
    if item is None:
        return None
    return f"{names[type(item)]} in a list" if isinstance(value, list) and value else names[type(item)]


def suggest_name(name: str, candidates: Iterable[str]) -> str:
    """Suggest the most similar candidate; empty if none is similar."""
    matches = difflib.get_close_matches(name, list(candidates), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def label_names(
    splits: Mapping[str, Dataset],
    column: str,
    kind: LabelKind,
    *,
    known: Sequence[str] | None = None,
    locations: Mapping[str, RowLocations] | None = None,
) -> list[str]:
    """Read the label names of a column in the order of their ids, and check that all splits have some of them.

    A value means the label of the same spelling: the integer 1 and the string "1" are the same label. Integers are indices
    into the names only if no split has strings and no name is an integer.

    Args:
        splits: Splits by name. Label names are read from `"train"`.
        column: Column of the labels.
        kind: Whether the column has one label per row (`"single"`) or lists of labels (`"multi"`, `"tags"`).
        known: The names, if they are known; the training split must not have others.
        locations: Locations of the rows of each split, for error messages.

    Returns:
        `known`; or the names of a `ClassLabel`, in order; or the sorted unique values of the training split (integers by
        value, also in CSV columns of integers only).

    Raises:
        ValueError: The column does not match `kind`, has invalid values, the training split has a label that is not known, or
            another split has none of the labels.
    """
    if kind not in get_args(LabelKind):
        raise ValueError(f"kind must be one of {', '.join(get_args(LabelKind))}, got {kind!r}.")
    if "train" not in splits:
        raise ValueError(f"splits must contain 'train', from which labels are read, got {', '.join(splits)}.")
    locations = locations or {}
    names_of = {
        name: _unique_labels(name, split, column, kind, locations.get(name) or RowLocations())
        for name, split in {"train": splits["train"], **splits}.items()
    }
    num_names = {name: len(found) for name, found in names_of.items()}
    kinds = {name: value_kind(_label_feature(name, split, column, kind)) for name, split in splits.items()}
    names = names_of["train"] if known is None else list(known)
    if not has_integer_names(names) and not {"string", "boolean"} & {*kinds.values()}:
        indices = [str(index) for index in range(len(names))]
        for name in splits:
            if kinds[name] != "class label":
                names_of[name] = _exclude(names_of[name], indices)
    for split_name, split_names in names_of.items():
        unknown = _exclude(split_names, names)
        # Some labels that only a split to evaluate has are scored as errors (see `find_further_labels`).
        are_of_other_type = kinds[split_name] != kinds["train"] and "integer" in (kinds[split_name], kinds["train"])
        if unknown and (split_name == "train" or are_of_other_type or len(unknown) == num_names[split_name]):
            types = f" ({kinds[split_name]} values, but {kinds['train']} values in the split 'train')"
            raise ValueError(
                f"the labels of the split {split_name!r} in {column!r} must be among "
                f"{'those of the training split' if known is None else 'the given labels'} "
                f"({', '.join(names[:MAX_LABELS_IN_ERROR])}), got {', '.join(unknown[:5])}"
                f"{types if kinds[split_name] != kinds['train'] else ''}. Correct the labels, or add them."
            )
    return names


def find_further_labels(
    splits: Mapping[str, Dataset],
    column: str,
    names: Sequence[str],
    is_known: Callable[[str], bool] | None = None,
    *,
    key: str = "data.labels",
) -> list[str]:
    """Find labels that a model does not have, in splits that it is evaluated on. A warning counts them in each split.

    Args:
        splits: The splits, by name.
        column: Column of the labels, or of lists of labels.
        names: Names of the labels of the data in the order of their ids.
        is_known: Whether the model has a label of this name. None if it has the labels `names`.
        key: The key of the recipe that lists all labels, for the warning.

    Returns:
        Their names, sorted.

    Raises:
        ValueError: The model has none of the labels of a split.
    """
    is_known = is_known or names.__contains__
    further: set[str] = set()
    for split_name, split in splits.items():
        feature = item_feature(split.features[column]) or split.features[column]
        ids = build_label_ids(feature, names)
        rows = [row if isinstance(row, list) else [row] for row in split[column]]
        values = set(chain.from_iterable(rows))
        names_of = {value: names[ids[value]] if value in ids else _label_name(feature, value) for value in values}
        unknown = {value: name for value, name in names_of.items() if name and not is_known(name)}
        counts = Counter(unknown[value] for row in rows for value in row if value in unknown)
        num_rows = sum(not unknown.keys().isdisjoint(row) for row in rows)
        if counts and counts.total() == sum(map(len, rows)):
            raise ValueError(
                f"the labels of the split {split_name!r} in {column!r} must be among those of the model "
                f"({', '.join(names[:MAX_LABELS_IN_ERROR])}), got {', '.join([*counts][:5])}. Correct the labels."
            )
        if counts:
            shown = ", ".join(f"{name}: {count:,}" for name, count in counts.most_common(5))
            logger.warning(
                f"{counts.total():,} labels in {num_rows:,} of {split.num_rows:,} rows of the split {split_name!r} are not "
                f"among those that the model learns ({shown}{', ...' if len(counts) > 5 else ''}). They are scored as errors. "
                f"Correct them, or list all labels in {key} and train on rows that have them."
            )
        further |= counts.keys()
    return sorted(further)


def build_label_ids(feature: Any, labels: Sequence[str], further: Sequence[str] = ()) -> dict[Hashable, int]:
    """Map the values of a label column to label ids.

    Args:
        feature: Feature of the column, or of the items of its lists.
        labels: Label names in the order of their ids.
        further: Names of labels that the model does not have, from `find_further_labels`. Their ids follow.

    Returns:
        Label id of each value. The values of a `ClassLabel` mean its names. Other integers mean the labels of that name
        ("3") if any label name is an integer; otherwise they are ids, which `label_names` rejects if another split has
        strings.
    """
    ids: dict[Hashable, int] = {name: index for index, name in enumerate(labels)}
    kind = value_kind(feature)
    if kind == "integer" and not has_integer_names(labels):
        ids = {index: index for index in range(len(labels))}
    elif kind is not None and kind != "string":
        ids = {value: ids[name] for value, name in _values_of(feature, labels).items()}
    further_values = _values_of(feature, further)
    further_ids = {value: len(labels) + further.index(name) for value, name in further_values.items()}
    return {**further_ids, **ids}


def _values_of(feature: Any, names: Sequence[str]) -> dict[Hashable, str]:
    """Return the values of a column that have one of some names, and their names."""
    values: Iterable[Hashable] = names
    if isinstance(feature, ClassLabel):
        values = range(len(feature.names))
    elif value_kind(feature) == "boolean":
        values = (False, True)
    elif value_kind(feature) == "integer":
        values = [int(name) for name in names if _is_integer(name)]
    return {value: name for value in values if (name := _label_name(feature, value)) in names}


def _label_name(feature: Any, value: Any) -> str:
    """Return the name of a value of a label column; empty if it is missing."""
    if isinstance(feature, ClassLabel):
        return feature.names[value] if value is not None and 0 <= value < len(feature.names) else ""
    return "" if value is None else str(value)


def has_integer_names(labels: Sequence[str]) -> bool:
    """Return whether any label name is an integer; if not, integer values of a column are label ids."""
    return any(_is_integer(name) for name in labels)


def value_kind(feature: Any) -> ValueKind | None:
    """Return the kind of the values of a label column; `None` for values that cannot be labels."""
    if isinstance(feature, ClassLabel):
        return "class label"
    dtype = getattr(feature, "dtype", "")
    if "string" in dtype:
        return "string"
    if dtype == "bool":
        return "boolean"
    return "integer" if "int" in dtype else None


def item_feature(feature: Any) -> Any | None:
    """Return the feature of the items of a list column; `None` for other columns."""
    return feature.feature if isinstance(feature, List | LargeList) else None


def row_labels(value: Any) -> set[Hashable]:
    """Return the labels of a row, for a single label or a list of them."""
    return {item for item in (value if isinstance(value, list) else [value]) if isinstance(item, Hashable)}


_WAYS_OUT = {
    "single": "For several labels per text set model.problem_type=multi_label_classification.",
    "multi": "Several labels per text need lists, as in JSON Lines. For one label remove model.problem_type.",
    "tags": "Tags need lists with a tag for each word, as in JSON Lines.",
}


def _label_feature(split_name: str, split: Dataset, column: str, kind: LabelKind) -> Any:
    """Return the feature of the labels themselves, also for lists of labels."""
    feature = split.features[column]
    item = item_feature(feature)
    if (kind == "single") != (item is None):
        expected, actual = ("one label", "a list") if kind == "single" else ("a list", "one value")
        raise ValueError(
            f"the column {column!r} of the split {split_name!r} must have {expected} per row, got {actual} "
            f"per row ({feature}). {_WAYS_OUT[kind]}"
        )
    return feature if item is None else item


def _unique_labels(split_name: str, split: Dataset, column: str, kind: LabelKind, locations: RowLocations) -> list[str]:
    item = _label_feature(split_name, split, column, kind)
    if isinstance(item, ClassLabel):
        return list(item.names)
    if value_kind(item) is None:
        raise ValueError(
            f"the labels of the column {column!r} of the split {split_name!r} must be strings, integers or a ClassLabel, got "
            f"{getattr(item, 'dtype', item)}. Convert the column (regression needs no label names)."
        )
    values = set()
    for row, value in enumerate(split[column]):
        for label in value if isinstance(value, list) else [value]:
            if label is None or label == "":
                raise ValueError(
                    f"{locations[row]}: the split {split_name!r} has no label in the column {column!r}. Add it, or remove the "
                    "row."
                )
            values.add(label)
    if kind == "multi" and values <= {0, 1}:
        _reject_zeros_and_ones(split_name, split, column)
    # CSV cells are strings, but integers among them are sorted by value.
    is_numeric = split.info.builder_name == "csv" and all(map(_is_integer, values))
    return [str(value) for value in sorted(values, key=int if is_numeric else None)]


def _reject_zeros_and_ones(split_name: str, split: Dataset, column: str) -> None:
    """Reject rows with a 0 or 1 for each label, which would be read as the labels 0 and 1."""
    rows = [value for value in split[column] if value]
    if rows and len(rows[0]) > 1 and len({len(row) for row in rows}) == 1:
        names = [f"label {index}" for index, applies in enumerate(rows[0]) if applies]
        raise ValueError(
            f"the column {column!r} of the split {split_name!r} must have lists of the labels of a text, got a 0 or 1 for each "
            f"label, such as {rows[0]}. Write the names of the labels that apply, such as {names}."
        )


def _exclude(names: Sequence[str], excluded: Sequence[str]) -> list[str]:
    return [name for name in names if name not in excluded]


def _is_integer(name: str) -> bool:
    """Return whether a name is an integer in canonical form, unlike "01"."""
    return name.isascii() and name.removeprefix("-").isdecimal() and str(int(name)) == name
