"""Loads the splits of a built-in corpus, a dataset of the Hub, a pronouncing dictionary or local files."""

import dataclasses
import glob
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDataset
from datasets.exceptions import DatasetGenerationError, DatasetsError
from huggingface_hub.utils import httpx

from hf_maskattn.data.columns import check_columns, item_feature, row_labels, suggest_name
from hf_maskattn.data.file_loading import check_cache_is_writable, load_files, progress_bars
from hf_maskattn.data.files import DICTIONARY_SUFFIX, TableFile, check_separator, list_files
from hf_maskattn.data.table_reading import RowLocations

if TYPE_CHECKING:
    from hf_maskattn.data.streaming import Shards

BUILT_IN = ("cldr-languages", "cldr-date-fields", "cldr-dates")
"""Names of the corpora that need no download."""


class Splits(DatasetDict):
    """Splits by name.

    Attributes:
        locations: Locations of the rows of each split, for error messages.
    """

    locations: dict[str, RowLocations]

    def __init__(self, splits: Mapping[str, Dataset], locations: Mapping[str, RowLocations]):
        super().__init__(splits)
        self.locations = dict(locations)


def load_splits(
    source: str | None = None,
    *,
    subset: str | None = None,
    train_file: str | Path | None = None,
    validation_file: str | Path | None = None,
    test_file: str | Path | None = None,
    csv_separator: str | None = None,
    train_split: str | None = "train",
    validation_split: str | None = "validation",
    test_split: str | None = "test",
    validation_fraction: float | None = None,
    label_columns: Sequence[str] = (),
    seed: int = 0,
    required_columns: Mapping[str, str] | Sequence[str] = (),
    streaming: bool = False,
) -> Splits:
    """Load the splits of a dataset.

    Args:
        source: `"cldr-languages"`, `"cldr-date-fields"`, `"cldr-dates"`, a `.dict` file (see `load_pronunciations`), a dataset
            id of the Hub, or a folder. `None` for local files.
        subset: Subset (configuration) of a dataset of the Hub.
        train_file: Local file, or a pattern such as "data/train-*.parquet"; see `load_files`.
        validation_file: Local file or pattern of the validation split.
        test_file: Local file or pattern of the test split.
        csv_separator: Character between the cells of CSV files. `None` for a tab in `.tsv` files, otherwise a comma.
        train_split: Name of the training split in `source`; `None` to load none, for evaluation only.
        validation_split: Name of the validation split in `source`; `None` to load none.
        test_split: Name of the test split in `source`; `None` to load none.
        validation_fraction: Fraction of the training rows that become the validation split, chosen by `seed`. Ignored if the
            source has a validation split.
        label_columns: Columns whose labels must all remain in the training split: rows that are chosen for validation stay
            there if one of their labels would be lost.
        seed: Seed of that choice.
        required_columns: Columns that every split must have, optionally with the recipe key of each one, for error messages.
        streaming: Whether to read the splits of `source` into memory, instead of downloading all of its splits.

    Returns:
        The splits `"train"`, `"validation"` and `"test"`, without those that are not requested. Features such as `ClassLabel`
        are kept. CSV and JSON are parsed as in `load_files`, whether local, in a folder or on the Hub.

    Raises:
        FileNotFoundError: A local file does not exist, or the Hub does not have `source` or cannot be reached.
        ValueError: Neither or both of `source` and files; an invalid file; a split or column that is missing or empty, or a
            required column with values of different types.
    """
    files = {"train": train_file, "validation": validation_file, "test": test_file}
    given_files = _check_arguments(source, files)
    names: dict[str, str | None]
    if source is None:
        if train_file is None and train_split is not None:
            raise ValueError("train_file is missing. Set it, or train_split=None for evaluation only.")
        opened = _Source({name: list_files(file, csv_separator) for name, file in given_files.items()})
        names = {name: name if name in opened.splits else None for name in files}
    else:
        opened = _open_source(source, subset, streaming, csv_separator)
        names = {"train": train_split, "validation": validation_split, "test": test_split}

    if validation_fraction is not None and names["validation"] not in opened.splits:
        names["validation"] = None
    loaded = {key: opened.load(name, f"{key}_split") for key, name in names.items() if name is not None}
    splits = Splits(loaded, {key: RowLocations(opened.files(str(names[key]))) for key in loaded})
    for name, split in splits.items():
        check_columns(name, split, required_columns, splits.locations[name])
    if validation_fraction is not None and "validation" not in splits:
        splits = _split_validation(splits, validation_fraction, seed, label_columns)
    return splits


def load_shards(
    source: str | None = None,
    *,
    subset: str | None = None,
    train_file: str | Path | None = None,
    csv_separator: str | None = None,
    train_split: str = "train",
    required_columns: Mapping[str, str] | Sequence[str] = (),
) -> "Shards":
    """Open the training split without loading it; see `load_splits` for the arguments.

    Returns:
        The split; each file is a shard.

    Raises:
        FileNotFoundError: A local file does not exist, or the Hub does not have `source` or cannot be reached.
        ValueError: A file cannot be read; a split or column is missing or empty.
    """
    from hf_maskattn.data.streaming import Shards

    files = _check_arguments(source, {"train": train_file})
    if source is None:
        shards = Shards(list_files(files["train"], csv_separator))
    else:
        opened = _open_source(source, subset, True, csv_separator)
        split = opened.find(train_split, "train_split")
        if isinstance(split, Dataset):
            split = split.to_iterable_dataset()
        shards = Shards(split, opened.class_labels)
    check_columns("train", shards, required_columns)
    return shards


@dataclass(frozen=True)
class _Source:
    """A source whose splits are listed, but not loaded.

    Attributes:
        splits: The splits by name: files, or datasets.
        class_labels: Columns of files whose labels are named by the source.
        reading: Context in which files are read, which explains errors.
    """

    splits: Mapping[str, Dataset | IterableDataset | list[TableFile]]
    class_labels: Mapping[str, Any] = field(default_factory=dict)
    reading: Callable[[], AbstractContextManager[None]] = nullcontext

    def find(self, name: str, argument: str) -> Dataset | IterableDataset | list[TableFile]:
        """Return a split; `argument` contains its name."""
        if name not in self.splits:
            raise ValueError(
                f"{argument} must be one of {', '.join(self.splits)}, got {name!r}{suggest_name(name, self.splits)}. Set it to "
                "one of them, or to None to load none."
            )
        return self.splits[name]

    def load(self, name: str, argument: str) -> Dataset:
        """Load a split into memory or into the cache of `datasets`."""
        split = self.find(name, argument)
        if isinstance(split, IterableDataset):
            from hf_maskattn.data.streaming import Shards

            return Shards(split).first_rows()
        if isinstance(split, list):
            with self.reading():
                split = load_files(split, split=name)
                for column in self.class_labels.keys() & split.features.keys():
                    split = split.cast_column(column, self.class_labels[column])
        if split.num_rows == 0:
            sizes = ", ".join(
                f"{key} ({value.num_rows} rows)" if isinstance(value, Dataset) else key for key, value in self.splits.items()
            )
            raise ValueError(f"the split {name!r} must not be empty. The splits are {sizes}.")
        return split

    def files(self, name: str) -> list[TableFile]:
        """Return the files of a split; empty if `datasets` reads them."""
        split = self.splits[name]
        return split if isinstance(split, list) else []


def _check_arguments(source: str | None, files: dict[str, str | Path | None]) -> dict[str, str | Path]:
    """Return the given files, after checking that either a source or files are given."""
    given = {name: file for name, file in files.items() if file is not None}
    if source is None and not given:
        raise ValueError(
            f"source or train_file must be given. Set source (a built-in corpus, {' or '.join(BUILT_IN)}, or a dataset id of "
            "the Hub) or train_file."
        )
    if source is not None and given:
        raise ValueError(
            f"source={source!r} and {', '.join(f'{name}_file' for name in given)} are mutually exclusive. Remove one of them."
        )
    return given


def _open_source(source: str, subset: str | None, streaming: bool, separator: str | None) -> _Source:
    is_dictionary = Path(source).suffix.lower() == DICTIONARY_SUFFIX
    if source in BUILT_IN or is_dictionary:
        if subset is not None:
            raise ValueError(f"subset={subset!r} is not supported with {source}, which has no subsets. Remove it.")
        if separator is not None:
            raise ValueError(f"csv_separator={separator!r} has no effect on {source}. Remove it.")
        return _Source(_build_corpus(source))
    if TableFile(source).kind is not None:
        raise ValueError(f"source={source!r} must not be a file. Set train_file instead.")
    if Path(source).is_dir() and glob.has_magic(source):
        raise ValueError(
            f"source={source!r} must be a folder without the pattern characters *, ? and [. Rename it, or set train_file, "
            "validation_file and test_file."
        )
    if (Path(source) / "state.json").is_file() or (Path(source) / "dataset_dict.json").is_file():
        raise ValueError(
            f"source={source!r} must not be a folder of save_to_disk, whose format is internal. Save its splits with "
            "to_parquet or to_json."
        )

    reading = partial(_explain_errors, source, subset)
    with reading():
        builder = datasets.load_dataset_builder(source, subset)
        files = _list_builder_files(builder, separator)
        if files is not None:
            return _Source(files, _class_labels(builder), reading)
        if separator is not None:
            raise ValueError(f"csv_separator={separator!r} has no effect on this dataset, which is not CSV. Remove it.")
        if streaming:
            return _Source(builder.as_streaming_dataset())
        with progress_bars(is_long=True):
            builder.download_and_prepare()
        return _Source(builder.as_dataset())


def _build_corpus(source: str) -> DatasetDict:
    """Build a corpus, or load a pronouncing dictionary."""
    if source not in BUILT_IN:
        from hf_maskattn.data.pronunciations import load_pronunciations

        return load_pronunciations(source)
    from hf_maskattn.data.cldr import build_cldr_date_fields, build_cldr_dates, build_cldr_languages

    builders = {
        "cldr-languages": build_cldr_languages,
        "cldr-date-fields": build_cldr_date_fields,
        "cldr-dates": build_cldr_dates,
    }
    return builders[source]()


def _list_builder_files(builder: datasets.DatasetBuilder, separator: str | None) -> dict[str, list[TableFile]] | None:
    """List the files of a dataset by split, if this package reads their format.

    Returns:
        CSV and JSON files, whose types `datasets` would guess, and local Parquet files. `None` for other formats, and if the
        card of the dataset sets reading options.
    """
    config = builder.config
    defaults = type(config)()
    options = {
        item.name
        for item in dataclasses.fields(config)
        if getattr(config, item.name) != getattr(defaults, item.name)
        and item.name not in ("name", "version", "description", "data_dir", "data_files", "sep", "delimiter", "features")
    }
    if options or not config.data_files:
        return None
    sep = getattr(config, "sep", ",")
    is_csv = builder.info.builder_name == "csv"
    if separator is None and is_csv and sep != ",":
        separator = sep
    files = {
        str(split): [TableFile(str(path), separator) for path in paths] for split, paths in config.data_files.items() if paths
    }
    all_files = [file for split_files in files.values() for file in split_files]
    kinds = {file.kind for file in all_files}
    is_supported = kinds in ({"csv"}, {"json"}) or (kinds == {"parquet"} and not any(file.is_remote for file in all_files))
    if not is_supported or builder.info.builder_name not in kinds:
        return None
    check_separator(separator, all_files)
    return files


def _class_labels(builder: datasets.DatasetBuilder) -> dict[str, Any]:
    """Return the columns whose labels are named by the card of a dataset."""
    features: Features = builder.info.features or Features()
    return {name: feature for name, feature in features.items() if isinstance(item_feature(feature) or feature, ClassLabel)}


@contextmanager
def _explain_errors(source: str, subset: str | None) -> Iterator[None]:
    """Add the name of the dataset, and how to correct it, to errors."""
    way_out = f"use a built-in corpus ({', '.join(BUILT_IN)}) or local files (train_file=...)."
    try:
        yield
    except (OSError, httpx.HTTPError) as error:
        check_cache_is_writable(error)
        if Path(source).is_dir():
            raise FileNotFoundError(
                f"the folder {source!r} could not be read: {str(error).rstrip('.')}. Correct it, or {way_out}"
            ) from error
        raise FileNotFoundError(
            f"the dataset {source!r} could not be loaded from the Hub: {str(error).rstrip('.')}. Check the id and the network"
            f"{suggest_name(source, BUILT_IN)}, or {way_out}"
        ) from error
    except (ValueError, DatasetsError) as error:
        check_cache_is_writable(error)
        # The cause has the reason why a file could not be read.
        reason = error.__cause__ if isinstance(error, DatasetGenerationError) else error
        raise ValueError(
            f"the dataset {source!r} (subset={subset!r}) could not be loaded: {str(reason).rstrip('.')}. Correct it, or "
            f"{way_out}"
        ) from error


def _split_validation(splits: Splits, fraction: float, seed: int, label_columns: Sequence[str]) -> Splits:
    """Split a fraction of the training rows off as the validation split; see `load_splits`."""
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction must be between 0 and 1, got {fraction}.")
    if "train" not in splits:
        raise ValueError(f"validation_fraction={fraction} requires a training split. Remove it, or set train_split.")
    train = splits["train"]
    size = round(train.num_rows * fraction)
    if not 0 < size < train.num_rows:
        raise ValueError(
            f"validation_fraction={fraction} of {train.num_rows} training rows must leave rows for both splits, got "
            f"{train.num_rows - size} for training and {size} for validation. Change it, or add rows."
        )
    indices = Dataset.from_dict({"row": range(train.num_rows)}).train_test_split(test_size=size, seed=seed)
    rows = {"train": list(indices["train"]["row"]), "validation": list(indices["test"]["row"])}
    for column in label_columns:
        rows = _keep_labels(rows, [row_labels(value) for value in train[column]])
    if not rows["validation"]:
        raise ValueError(
            f"validation_fraction={fraction} leaves no rows for validation: each of the {size} chosen rows has a label in "
            f"{' or '.join(map(repr, label_columns))} that no other row has. Raise it, or provide a validation split."
        )
    locations = splits.locations["train"]
    return Splits(
        {**splits, **{name: train.select(indices) for name, indices in rows.items()}},
        {**splits.locations, **{name: locations.select(indices) for name, indices in rows.items()}},
    )


def _keep_labels(rows: dict[str, list[int]], labels: Sequence[set[Any]]) -> dict[str, list[int]]:
    """Move rows from validation to training until training has all labels; the order of the rows is kept."""
    known = set().union(*(labels[row] for row in rows["train"]))
    moved = []
    for row in rows["validation"]:
        if not labels[row] <= known:
            known |= labels[row]
            moved.append(row)
    return {"train": rows["train"] + moved, "validation": [row for row in rows["validation"] if row not in set(moved)]}
