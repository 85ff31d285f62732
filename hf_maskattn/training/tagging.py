"""How the tags of a recipe's data become labels: of a new model, or of one that exists."""

from dataclasses import dataclass

from datasets import ClassLabel, Dataset

from hf_maskattn.data.columns import item_feature, label_names, value_kind
from hf_maskattn.data.loading import Splits
from hf_maskattn.data.tag_reading import TagReader, iterate_tags, warn_about_tags
from hf_maskattn.data.tag_schemes import TagScheme, detect_tag_scheme, has_prefix, iob2_labels
from hf_maskattn.recipes.recipe import Recipe


@dataclass(frozen=True)
class Tagging:
    """How tags become labels.

    Args:
        names: Names of the tags of the data in the order of their numbers.
        labels: Labels of the model by id.
        scheme: Scheme of the tags; `None` for tags that are labels as they are, as in models of before it was recorded.
        is_strict: Whether the recipe says the scheme, so that a tag without one of its prefixes is an error.
    """

    names: list[str]
    labels: list[str]
    scheme: TagScheme | None
    is_strict: bool = False

    @property
    def marks_entities(self) -> bool:
        """Whether the tags mark entities, which are converted to IOB2."""
        return self.scheme not in (None, "none")

    def reader(self, split: Dataset, label_column: str) -> TagReader:
        """Build the reader of a split."""
        return TagReader.from_column(split, label_column, **vars(self))


def tagging_to_learn(recipe: Recipe, splits: Splits, *, as_tagged: bool = False) -> Tagging:
    """Find the labels of a new model: those of the entities in IOB2, or the tags where they mark no entities.

    Args:
        recipe: The recipe.
        splits: The splits; "train" tells names and scheme of the tags. Of a stream its first rows.
        as_tagged: Whether tags are labels as they are, as in runs of before there was a `tag_scheme`.

    Returns:
        The tagging, which holds for all splits. Warns of words that cannot be seen, and of tags that contradict the scheme.

    Raises:
        ValueError: If a row cannot be read, or the tags do not fit the scheme of the recipe or any.
    """
    column, known = recipe.label_column, recipe.data.labels
    names = label_names({"train": splits["train"]}, column, "tags", known=known, locations=splits.locations)
    scheme = None if as_tagged else _scheme(recipe, splits["train"], names)
    labels = names if scheme in (None, "none") else iob2_labels(names)
    if labels is not names and known is None:
        names = [*names, *_other_names(splits, column, names, labels)]
        known = names
    label_names(splits, column, "tags", known=known, locations=splits.locations)
    tagging = Tagging(names, labels, scheme, is_strict=recipe.data.tag_scheme is not None)
    _check(recipe, splits, tagging)
    return tagging


def tagging_of_model(recipe: Recipe, name: str, splits: Splits, labels: list[str], tag_scheme: str | None) -> Tagging:
    """Find how tags, which may have another scheme than the training data, become the labels of a model.

    Args:
        recipe: The recipe.
        name: Name of the split to be scored.
        splits: What was loaded for it.
        labels: The labels of the model by id.
        tag_scheme: The `tag_scheme` of its configuration.

    Returns:
        The tagging. Warns as `tagging_to_learn` does.

    Raises:
        ValueError: Likewise.
    """
    data, split = recipe.data, splits[name]
    if data.tag_scheme is None and tag_scheme in (None, "none"):
        tagging = Tagging(labels, labels, "none" if tag_scheme == "none" else None)
    else:
        names = data.labels or _names_in(split, recipe.label_column) or labels
        tagging = Tagging(names, labels, _scheme(recipe, split, names), data.tag_scheme is not None)
    _check(recipe, Splits({name: split}, splits.locations), tagging)
    return tagging


def _other_names(splits: Splits, column: str, names: list[str], labels: list[str]) -> list[str]:
    """Name the tags that other splits alone have, as "B-X" of IOB1 often is, and that mean labels of the model.

    Raises:
        ValueError: If a tag means none; says which tags the training split does not have.
    """
    others = {
        tag
        for name, split in splits.items()
        if name != "train"
        for tag in label_names({"train": split}, column, "tags", locations={"train": splits.locations[name]})
    }
    if not all(tag == "O" or (has_prefix(tag) and f"B-{tag[2:]}" in labels) for tag in others):
        label_names(splits, column, "tags", locations=splits.locations)
    return sorted(others - {*names})


def _names_in(split: Dataset, column: str) -> list[str] | None:
    """Name the tags of a split; `None` where they are no texts and have no names."""
    item = item_feature(split.features[column])
    if isinstance(item, ClassLabel):
        return list(item.names)
    return sorted({str(tag) for tags in split[column] for tag in tags or ()}) if value_kind(item) == "string" else None


def _scheme(recipe: Recipe, split: Dataset, names: list[str]) -> TagScheme:
    """Take the scheme of a recipe, or else detect that of a split."""
    if recipe.data.tag_scheme is not None:
        return recipe.data.tag_scheme
    reader = TagReader.from_column(split, recipe.label_column, names, labels=names, scheme=None)
    return detect_tag_scheme(names, iterate_tags(split, recipe.label_column, reader.tags))


def _check(recipe: Recipe, splits: Splits, tagging: Tagging) -> None:
    readers = {}
    for name, split in splits.items():
        is_sample = name == "train" and recipe.data.streaming
        shown = f"{name} (the first {split.num_rows} rows)" if is_sample else name
        readers[shown] = split, tagging.reader(split, recipe.label_column), splits.locations[name]
    warn_about_tags(readers, tokens_column=recipe.data.tokens_column, label_column=recipe.label_column)
