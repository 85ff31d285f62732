"""What the labels of a dataset are called, and which number each of its label values stands for."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from datasets import ClassLabel, Dataset, LargeList, List

LabelKind = Literal["single", "multi", "tags"]
"""One label per row, any number per row, or one per word."""


class UnknownLabelError(ValueError):
    """A row has a label that is none of the labels of the model."""


def label_names(
    splits: Mapping[str, Dataset], column: str, kind: LabelKind, *, known: Sequence[str] | None = None
) -> list[str]:
    """Name the labels of a column in the order of their numbers.

    Args:
        splits: Splits by name; the names of the labels come from `"train"`.
        column: Column of the labels.
        kind: Whether the column holds one label per row (`"single"`) or a list (`"multi"`, `"tags"`).
        known: The names, where they are known; they are compared with the splits.

    Returns:
        `known`; or the names of a `ClassLabel` in its order; otherwise the sorted different values of the training split
        (numbers by size, then turned into text).

    Raises:
        ValueError: The column does not fit `kind`, holds values that are no labels, or a split has a label that is not
            known or that the training split does not have.
    """
    if kind not in get_args(LabelKind):
        raise ValueError(f"kind={kind!r} is none of {', '.join(get_args(LabelKind))}")
    if "train" not in splits:
        raise ValueError(f"the labels of {column!r} are read from the split 'train'; there are {', '.join(splits)}")
    names = _names_in("train", splits["train"], column, kind) if known is None else list(known)
    for split_name, split in splits.items():
        unknown = [name for name in _names_in(split_name, split, column, kind) if name not in names]
        if unknown:
            where = "the training split does not have" if known is None else "are not among those that were given"
            raise ValueError(
                f"the split {split_name!r} has labels in {column!r} that {where}: {', '.join(unknown[:5])}; "
                f"{'the training split has' if known is None else 'given were'} {', '.join(names[:20])}"
            )
    return names


def label_numbers(feature: Any, labels: Sequence[str]) -> dict[Hashable, int]:
    """Say which label each value of a column stands for.

    Args:
        feature: Feature of the column, or of the items of its lists.
        labels: Names of the labels in the order of their numbers.

    Returns:
        From a value, as it stands in the column, to its place in `labels`. The numbers of a `ClassLabel` stand for
        its names. Other numbers stand for the labels of that name ("3") if all names are numbers, else for places.
    """
    numbers: dict[Hashable, int] = {name: number for number, name in enumerate(labels)}
    if isinstance(feature, ClassLabel):
        return {value: numbers[name] for value, name in enumerate(feature.names) if name in numbers}
    if feature.dtype == "bool":
        return {value: numbers[str(value)] for value in (False, True) if str(value) in numbers}
    if "int" in feature.dtype:
        if all(_is_integer(name) for name in labels):
            return {int(name): number for number, name in enumerate(labels)}
        return {number: number for number in range(len(labels))}
    return numbers


def item_feature(feature: Any) -> Any | None:
    """Give the feature of the items of a list column, or `None` where the column holds no lists."""
    return feature.feature if isinstance(feature, List | LargeList) else None


def _names_in(split_name: str, split: Dataset, column: str, kind: LabelKind) -> list[str]:
    feature = split.features[column]
    item = item_feature(feature)
    if (kind == "single") != (item is None):
        found = "one value per row" if item is None else "a list per row"
        raise ValueError(
            f"the column {column!r} of the split {split_name!r} holds {found} ({feature}), which does not fit kind={kind!r}"
        )
    item = feature if item is None else item
    if isinstance(item, ClassLabel):
        return list(item.names)
    if "int" not in item.dtype and item.dtype not in ("string", "large_string", "bool"):
        raise ValueError(
            f"the column {column!r} of the split {split_name!r} holds values of type {item.dtype}, which are no "
            "labels; labels are text, whole numbers or a ClassLabel, the same in every row (for regression, no names "
            "are needed)"
        )
    values = set()
    for row, value in _values(split, column, kind):
        if value is None or value == "":
            raise ValueError(f"the split {split_name!r} has no label in row {row} (counted from 0) of {column!r}")
        values.add(value)
    return [str(value) for value in sorted(values)]


def _values(split: Dataset, column: str, kind: LabelKind) -> Iterator[tuple[int, Any]]:
    for row, value in enumerate(split[column]):
        if kind == "single" or value is None:
            yield row, value
        else:
            yield from ((row, item) for item in value)


def _is_integer(name: str) -> bool:
    return name.removeprefix("-").isdecimal()
