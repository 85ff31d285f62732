"""Any source of data -> a `DatasetDict` with the splits "train", "validation" and "test", or the shards of one split."""

import dataclasses
import glob
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import datasets
from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDataset
from datasets.exceptions import DatasetGenerationError, DatasetsError
from huggingface_hub.utils import httpx

from hf_maskattn.data.cache_directory import check_cache_after_failure
from hf_maskattn.data.cldr import build_cldr_languages
from hf_maskattn.data.cldr_dates import build_cldr_date_fields, build_cldr_dates
from hf_maskattn.data.columns import check_columns, nearest
from hf_maskattn.data.labels import item_feature, labels_of_row
from hf_maskattn.data.local_files import check_separator, find_files, load_files
from hf_maskattn.data.places import Places
from hf_maskattn.data.progress import bars_for_many_bytes
from hf_maskattn.data.pronunciations import DICTIONARY_ENDING, load_pronunciations
from hf_maskattn.data.shards import Shards
from hf_maskattn.data.table_file import TableFile

BUILT_IN: dict[str, Callable[[], DatasetDict]] = {
    "cldr-languages": build_cldr_languages,
    "cldr-date-fields": build_cldr_date_fields,
    "cldr-dates": build_cldr_dates,
}
"""The corpora that need no download, by the name that `load_splits` knows them by."""


class Splits(DatasetDict):
    """Splits by name.

    Attributes:
        places: Where the rows of each split stand, for error messages.
    """

    places: dict[str, Places]

    def __init__(self, splits: Mapping[str, Dataset], places: Mapping[str, Places]):
        super().__init__(splits)
        self.places = dict(places)

    def with_split(self, name: str, split: Dataset, places: Places) -> "Splits":
        """Put a split before the others."""
        return Splits({name: split, **self}, {name: places, **self.places})


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
    label_column: str | None = None,
    seed: int = 0,
    required_columns: Mapping[str, str] | Sequence[str] = (),
    streaming: bool = False,
) -> Splits:
    """Load a built-in corpus, a dataset of the Hugging Face Hub, a pronouncing dictionary, or local files.

    Args:
        source: `"cldr-languages"`, `"cldr-date-fields"`, `"cldr-dates"`, a `.dict` file (see `load_pronunciations`), or
            what `datasets.load_dataset` takes: the id of a dataset on the Hub, or a folder. `None` with local files.
        subset: Subset (configuration) of a dataset on the Hub.
        train_file: Local file, or a pattern such as "data/train-*.parquet"; see `load_files`.
        validation_file: Likewise.
        test_file: Likewise.
        csv_separator: Character between the cells of CSV files; `None` for a tab in `.tsv` files, else a comma.
        train_split: What `source` calls the split to train on; `None` to go without, to evaluate only.
        validation_split: What `source` calls its validation split; `None` to go without.
        test_split: What `source` calls its test split; `None` to go without.
        validation_fraction: Share of the training rows, drawn by `seed`, that becomes the validation split where
            the source has none. A validation split that the source has is used as it is.
        label_column: Column whose labels must all stay in the training split: rows that are drawn for validation go back
            to it where a label of theirs would be lost. `None` for no labels.
        seed: Seed of that draw.
        required_columns: Columns that every split must have; with the keys that name them, for error messages.
        streaming: Whether to read the splits of `source` into memory, rather than to download all splits that it has.

    Returns:
        The splits under the keys `"train"`, `"validation"` and `"test"`; those to go without, and those no file was
        given for, are absent. Features such as `ClassLabel` are kept. CSV and JSON are read as `load_files` reads them,
        from local files, a folder and the Hub alike.

    Raises:
        FileNotFoundError: A local file does not exist, or the Hub does not have `source` or cannot be reached.
        ValueError: Neither or both of `source` and files; a broken file; a split or column that is missing or empty, or a
            required column with values of different types.
    """
    files = {"train": train_file, "validation": validation_file, "test": test_file}
    files_given = _files_given(source, files)
    names: dict[str, str | None]
    if source is None:
        if train_file is None and train_split is not None:
            raise ValueError("train_file is missing; give it, or train_split=None to evaluate only")
        opened = _Source({name: find_files(file, csv_separator) for name, file in files_given.items()})
        names = {name: name if name in opened.splits else None for name in files}
    else:
        opened = _open_source(source, subset, streaming, csv_separator)
        names = {"train": train_split, "validation": validation_split, "test": test_split}

    if validation_fraction is not None and names["validation"] not in opened.splits:
        names["validation"] = None
    loaded = {key: opened.load(name, f"{key}_split") for key, name in names.items() if name is not None}
    splits = Splits(loaded, {key: Places(opened.files(str(names[key]))) for key in loaded})
    for name, split in splits.items():
        check_columns(name, split, required_columns, splits.places[name])
    if validation_fraction is not None and "validation" not in splits:
        _carve_validation(splits, validation_fraction, seed, label_column)
    return splits


def load_shards(
    source: str | None = None,
    *,
    subset: str | None = None,
    train_file: str | Path | None = None,
    csv_separator: str | None = None,
    train_split: str = "train",
    required_columns: Mapping[str, str] | Sequence[str] = (),
) -> Shards:
    """Open the training split to read it piece by piece; see `load_splits` for the arguments.

    Returns:
        The split; each file is a shard.

    Raises:
        FileNotFoundError: A local file does not exist, or the Hub does not have `source` or cannot be reached.
        ValueError: A file that cannot be read; a split or column that is missing or empty.
    """
    files = _files_given(source, {"train": train_file})
    if source is None:
        shards = Shards(find_files(files["train"], csv_separator))
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
    """Splits that were found, not read.

    Args:
        splits: The splits by name: files, or what `datasets` made of the source.
        class_labels: Columns of files whose labels the source names.
        reading: Context that explains errors in reading.
    """

    splits: Mapping[str, Dataset | IterableDataset | list[TableFile]]
    class_labels: Mapping[str, Any] = field(default_factory=dict)
    reading: Callable[[], AbstractContextManager[None]] = nullcontext

    def find(self, name: str, argument: str) -> Dataset | IterableDataset | list[TableFile]:
        """Find a split; `argument` is what names it."""
        if name not in self.splits:
            raise ValueError(
                f"there is no split {name!r}{nearest(name, self.splits)}; the splits are {', '.join(self.splits)}. "
                f"Set {argument} to one of them, or to None to go without"
            )
        return self.splits[name]

    def load(self, name: str, argument: str) -> Dataset:
        """Read a split."""
        split = self.find(name, argument)
        if isinstance(split, IterableDataset):
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
            raise ValueError(f"the split {name!r} is empty; the splits are {sizes}")
        return split

    def files(self, name: str) -> list[TableFile]:
        """List the files of a split; none where `datasets` reads them."""
        split = self.splits[name]
        return split if isinstance(split, list) else []


def _files_given(source: str | None, files: dict[str, str | Path | None]) -> dict[str, str | Path]:
    given = {name: file for name, file in files.items() if file is not None}
    if source is None and not given:
        raise ValueError(
            f"no data given: set source (a built-in corpus, {' or '.join(BUILT_IN)}, or a dataset id of the Hub) or train_file"
        )
    if source is not None and given:
        raise ValueError(
            f"source={source!r} and local files ({', '.join(f'{name}_file' for name in given)}) are both given; "
            "give one of them"
        )
    return given


def _open_source(source: str, subset: str | None, streaming: bool, separator: str | None) -> _Source:
    is_dictionary = Path(source).suffix.lower() == DICTIONARY_ENDING
    if source in BUILT_IN or is_dictionary:
        if subset is not None:
            raise ValueError(f"subset={subset!r}: {source} has no subsets; leave subset out")
        if separator is not None:
            raise ValueError(f"csv_separator={separator!r} has no meaning for {source}. Remove it.")
        return _Source(load_pronunciations(source) if is_dictionary else BUILT_IN[source]())
    if TableFile(source).kind is not None:
        raise ValueError(f"source={source!r} looks like a local file; give it as train_file")
    if Path(source).is_dir() and glob.has_magic(source):
        raise ValueError(
            f"source={source!r} must be a folder without the characters *, ? and [, which stand for patterns. Rename it, or "
            "give its files as train_file, validation_file and test_file."
        )
    if (Path(source) / "state.json").is_file() or (Path(source) / "dataset_dict.json").is_file():
        raise ValueError(
            f"source={source!r} was written by save_to_disk, which is a cache and no exchange format. Write its splits with "
            "to_parquet or to_json instead."
        )

    reading = partial(_explained, source, subset)
    with reading():
        builder = datasets.load_dataset_builder(source, subset)
        files = _files_of(builder, separator)
        if files is not None:
            return _Source(files, _class_labels(builder), reading)
        if separator is not None:
            raise ValueError(f"csv_separator={separator!r} has no meaning for this dataset, which is no CSV")
        if streaming:
            return _Source(builder.as_streaming_dataset())
        with bars_for_many_bytes(None):
            builder.download_and_prepare()
        return _Source(builder.as_dataset())


def _files_of(builder: datasets.DatasetBuilder, separator: str | None) -> dict[str, list[TableFile]] | None:
    """List the files of a dataset by split, if they are of a kind whose values `datasets` would guess, or local Parquet.

    Returns:
        The files; `None` for other kinds, and where the card of the dataset sets how they are read.
    """
    config = builder.config
    plain = type(config)()
    is_set = {
        item.name
        for item in dataclasses.fields(config)
        if getattr(config, item.name) != getattr(plain, item.name)
        and item.name not in ("name", "version", "description", "data_dir", "data_files", "sep", "delimiter", "features")
    }
    if is_set or not config.data_files:
        return None
    sep = getattr(config, "sep", ",")
    is_csv = builder.info.builder_name == "csv"
    if separator is None and is_csv and sep != ",":
        separator = sep
    files = {
        str(split): [TableFile(str(path), separator) for path in paths] for split, paths in config.data_files.items() if paths
    }
    every_file = [file for files_of_split in files.values() for file in files_of_split]
    kinds = {file.kind for file in every_file}
    is_ours = kinds in ({"csv"}, {"json"}) or (kinds == {"parquet"} and not any(file.is_remote for file in every_file))
    if not is_ours or builder.info.builder_name not in kinds:
        return None
    check_separator(separator, every_file)
    return files


def _class_labels(builder: datasets.DatasetBuilder) -> dict[str, Any]:
    """Find the columns whose labels the card of a dataset names; other types come from the values."""
    features: Features = builder.info.features or Features()
    return {name: feature for name, feature in features.items() if isinstance(item_feature(feature) or feature, ClassLabel)}


@contextmanager
def _explained(source: str, subset: str | None) -> Iterator[None]:
    """Name the dataset that could not be loaded, and the ways out."""
    ways_out = f"use a built-in corpus ({', '.join(BUILT_IN)}) or local files (train_file=...)"
    try:
        yield
    except (OSError, httpx.HTTPError) as error:
        check_cache_after_failure(error)
        if Path(source).is_dir():
            raise FileNotFoundError(
                f"the folder {source!r} could not be read: {str(error).rstrip('.')}. Correct it, or {ways_out}"
            ) from error
        raise FileNotFoundError(
            f"the dataset {source!r} could not be loaded from the Hub: {str(error).rstrip('.')}. Check the id and the network"
            f"{nearest(source, BUILT_IN)}, or {ways_out}"
        ) from error
    except (ValueError, DatasetsError) as error:
        check_cache_after_failure(error)
        # Of a file that cannot be read, the cause says why.
        reason = error.__cause__ if isinstance(error, DatasetGenerationError) else error
        raise ValueError(
            f"the dataset {source!r} (subset={subset!r}) could not be loaded: {str(reason).rstrip('.')}. Correct it, or "
            f"{ways_out}"
        ) from error


def _carve_validation(splits: Splits, fraction: float, seed: int, label_column: str | None) -> None:
    """Move a share of the training rows into a validation split; rows whose labels would be lost stay."""
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction={fraction} must lie between 0 and 1")
    if "train" not in splits:
        raise ValueError(f"validation_fraction={fraction} needs a training split; leave it out, or set train_split")
    train = splits["train"]
    size = round(train.num_rows * fraction)
    if not 0 < size < train.num_rows:
        raise ValueError(
            f"validation_fraction={fraction} of {train.num_rows} training rows leaves {train.num_rows - size} rows to train on "
            f"and {size} to validate on; both need at least one"
        )
    numbers = Dataset.from_dict({"row": range(train.num_rows)}).train_test_split(test_size=size, seed=seed)
    rows = {"train": list(numbers["train"]["row"]), "validation": list(numbers["test"]["row"])}
    if label_column is not None:
        _keep_labels(rows, [labels_of_row(value) for value in train[label_column]])
    if not rows["validation"]:
        raise ValueError(
            f"validation_fraction={fraction} leaves no row to validate on: each of the {size} rows that were drawn has a label "
            f"in {label_column!r} that no other row has. Raise it, or give a validation split."
        )
    for name, chosen in rows.items():
        splits[name] = train.select(chosen)
    splits.places |= {name: splits.places["train"].select(chosen) for name, chosen in rows.items()}


def _keep_labels(rows: dict[str, list[int]], labels: Sequence[set[Any]]) -> None:
    """Move rows from validation to training until training has all labels; rows keep their order."""
    known = set().union(*(labels[row] for row in rows["train"]))
    kept = []
    for row in rows["validation"]:
        if not labels[row] <= known:
            known |= labels[row]
            kept.append(row)
    if kept:
        rows["train"] += kept
        rows["validation"] = [row for row in rows["validation"] if row not in set(kept)]


def lines_of_file(path: Path) -> list[str]:
    """Read the lines of a UTF-8 file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not UTF-8; names the line.
    """
    return _lines(path.read_bytes(), str(path))


def lines_of_stream(stream: BinaryIO) -> list[str]:
    """Read the lines of a UTF-8 stream; see `lines_of_file`."""
    return _lines(stream.read(), "stdin")


def _lines(content: bytes, origin: str) -> list[str]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{origin}, line {line}: not UTF-8 (byte 0x{content[error.start]:02x}); save the text as UTF-8."
        ) from error
    # Not splitlines(), which would cut at characters that are part of a text, such as U+2028.
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines
