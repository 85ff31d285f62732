"""What the labels of a dataset are called, and which number each of its label values stands for."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from datasets import ClassLabel, Dataset, LargeList, List

from hf_maskattn.data.places import Places

LabelKind = Literal["single", "multi", "tags"]
"""One label per row, any number per row, or one per word."""

_ValueKind = Literal["text", "whole numbers", "true or false", "class names"]


class UnknownLabelError(ValueError):
    """A row has a label that is none of the labels of the model."""


def label_names(
    splits: Mapping[str, Dataset],
    column: str,
    kind: LabelKind,
    *,
    known: Sequence[str] | None = None,
    places: Mapping[str, Places] | None = None,
) -> list[str]:
    """Name the labels of a column in the order of their numbers, and check that all splits can be read by these names.

    A value stands for the label that is written like it: the whole number 1 and the text "1" are one label. Whole numbers
    are positions in the names only where no split holds texts and no name is a whole number.

    Args:
        splits: Splits by name; the names of the labels come from `"train"`.
        column: Column of the labels.
        kind: Whether the column holds one label per row (`"single"`) or a list (`"multi"`, `"tags"`).
        known: The names, where they are known; they are compared with the splits.
        places: Where the rows of each split stand, for error messages.

    Returns:
        `known`; or the names of a `ClassLabel` in its order; otherwise the sorted different values of the training split
        (numbers by size, then turned into text; so are the cells of CSV where all of them are whole numbers).

    Raises:
        ValueError: The column does not fit `kind`, holds values that are no labels, or a split has a label that is not
            known or that the training split does not have.
    """
    if kind not in get_args(LabelKind):
        raise ValueError(f"kind={kind!r} is none of {', '.join(get_args(LabelKind))}")
    if "train" not in splits:
        raise ValueError(f"the labels of {column!r} are read from the split 'train'; there are {', '.join(splits)}")
    places = places or {}
    found = {
        name: _names_in(name, split, column, kind, places.get(name) or Places())
        for name, split in {"train": splits["train"], **splits}.items()
    }
    kinds = {name: value_kind(_label_feature(name, split, column, kind)) for name, split in splits.items()}
    names = found["train"] if known is None else list(known)
    if takes_positions(names) and not {"text", "true or false"} & {*kinds.values()}:
        positions = [str(number) for number in range(len(names))]
        found = {name: found[name] if kinds[name] == "class names" else _unless_in(found[name], positions) for name in splits}
    for split_name, values in found.items():
        unknown = _unless_in(values, names)
        if unknown:
            where = "the training split does not have" if known is None else "are not among those that were given"
            types = f" ({kinds[split_name]}, where the split 'train' has {kinds['train']})"
            raise ValueError(
                f"the split {split_name!r} has labels in {column!r} that {where}: {', '.join(unknown[:5])}"
                f"{types if kinds[split_name] != kinds['train'] else ''}; "
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
        its names. Other whole numbers stand for the labels of that name ("3") if any label is named by a whole number, else
        for places; `label_names` refuses them where another split holds texts.
    """
    numbers: dict[Hashable, int] = {name: number for number, name in enumerate(labels)}
    kind = value_kind(feature)
    if kind == "class names":
        return {value: numbers[name] for value, name in enumerate(feature.names) if name in numbers}
    if kind == "true or false":
        return {value: numbers[str(value)] for value in (False, True) if str(value) in numbers}
    if kind == "whole numbers":
        if takes_positions(labels):
            return {number: number for number in range(len(labels))}
        return {int(name): number for name, number in zip(labels, range(len(labels)), strict=True) if _is_integer(name)}
    return numbers


def takes_positions(labels: Sequence[str]) -> bool:
    """Say whether whole numbers can only be positions in the names of labels, since none of the names is one."""
    return not any(_is_integer(name) for name in labels)


def value_kind(feature: Any) -> _ValueKind | None:
    """Say what the values of a label column are; `None` where they are no labels."""
    if isinstance(feature, ClassLabel):
        return "class names"
    dtype = getattr(feature, "dtype", "")
    if "string" in dtype:
        return "text"
    if dtype == "bool":
        return "true or false"
    return "whole numbers" if "int" in dtype else None


def item_feature(feature: Any) -> Any | None:
    """Give the feature of the items of a list column, or `None` where the column holds no lists."""
    return feature.feature if isinstance(feature, List | LargeList) else None


def labels_of_row(value: Any) -> set[Hashable]:
    """Collect the labels of a row, whether it has one or a list of them."""
    return {item for item in (value if isinstance(value, list) else [value]) if isinstance(item, Hashable)}


def _label_feature(split_name: str, split: Dataset, column: str, kind: LabelKind) -> Any:
    """Find the feature of the labels themselves, in lists or not."""
    feature = split.features[column]
    item = item_feature(feature)
    if (kind == "single") != (item is None):
        found = "one value per row" if item is None else "a list per row"
        raise ValueError(
            f"the column {column!r} of the split {split_name!r} holds {found} ({feature}), which does not fit kind={kind!r}"
        )
    return feature if item is None else item


def _names_in(split_name: str, split: Dataset, column: str, kind: LabelKind, places: Places) -> list[str]:
    item = _label_feature(split_name, split, column, kind)
    if isinstance(item, ClassLabel):
        return list(item.names)
    if value_kind(item) is None:
        raise ValueError(
            f"the column {column!r} of the split {split_name!r} holds values of type {getattr(item, 'dtype', item)}, which are "
            "no labels; labels are text, whole numbers or a ClassLabel, the same in every row (for regression, no names "
            "are needed)"
        )
    values = set()
    for row, value in _values(split, column, kind):
        if value is None or value == "":
            raise ValueError(
                f"{places(row)}: the split {split_name!r} has no label in the column {column!r}; add it, or remove the row"
            )
        values.add(value)
    # The cells of CSV are texts: numbers among them have the order of numbers.
    is_numbered = split.info.builder_name == "csv" and all(map(_is_integer, values))
    return [str(value) for value in sorted(values, key=int if is_numbered else None)]


def _values(split: Dataset, column: str, kind: LabelKind) -> Iterator[tuple[int, Any]]:
    for row, value in enumerate(split[column]):
        if kind == "single" or value is None:
            yield row, value
        else:
            yield from ((row, item) for item in value)


def _unless_in(names: Sequence[str], known: Sequence[str]) -> list[str]:
    return [name for name in names if name not in known]


def _is_integer(name: str) -> bool:
    """Say whether a name is a whole number as Python writes it: "01" is none."""
    return name.isascii() and name.removeprefix("-").isdecimal() and str(int(name)) == name
