"""Any source of data -> a `DatasetDict` with the splits "train", "validation" and "test", or the shards of one split."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import datasets
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from datasets.exceptions import DatasetGenerationError, DatasetsError
from huggingface_hub.utils import httpx

from hf_maskattn.data.cache_directory import check_cache_after_failure
from hf_maskattn.data.cldr_date_fields import build_cldr_date_fields
from hf_maskattn.data.cldr_dates import build_cldr_dates
from hf_maskattn.data.cldr_languages import build_cldr_languages
from hf_maskattn.data.local_files import FILE_ENDINGS, find_files, load_file, stream_files
from hf_maskattn.data.pronunciations import DICTIONARY_ENDING, load_pronunciations
from hf_maskattn.data.shards import Shards

BUILT_IN: dict[str, Callable[[], DatasetDict]] = {
    "cldr-languages": build_cldr_languages,
    "cldr-date-fields": build_cldr_date_fields,
    "cldr-dates": build_cldr_dates,
}
"""The corpora that need no download, by the name that `load_splits` knows them by."""


def load_splits(
    source: str | None = None,
    *,
    subset: str | None = None,
    train_file: str | Path | None = None,
    validation_file: str | Path | None = None,
    test_file: str | Path | None = None,
    train_split: str | None = "train",
    validation_split: str | None = "validation",
    test_split: str | None = "test",
    validation_fraction: float | None = None,
    seed: int = 0,
    required_columns: Sequence[str] = (),
    streaming: bool = False,
) -> DatasetDict:
    """Load a built-in corpus, a dataset of the Hugging Face Hub, a pronouncing dictionary, or local files.

    Args:
        source: `"cldr-languages"`, `"cldr-date-fields"`, `"cldr-dates"`, a `.dict` file (see `load_pronunciations`), or
            what `datasets.load_dataset` takes: the id of a dataset on the Hub, or a folder. `None` with local files.
        subset: Subset (configuration) of a dataset on the Hub.
        train_file: Local `.jsonl`, `.json`, `.csv` or `.parquet` file, or a pattern such as "data/train-*.parquet".
        validation_file: Likewise.
        test_file: Likewise.
        train_split: What `source` calls the split to train on; `None` to go without, to evaluate only.
        validation_split: What `source` calls its validation split; `None` to go without.
        test_split: What `source` calls its test split; `None` to go without.
        validation_fraction: Share of the training rows, drawn by `seed`, that becomes the validation split where
            the source has none. A validation split that the source has is used as it is.
        seed: Seed of that draw.
        required_columns: Columns that every split must have.
        streaming: Whether to read the splits of `source` into memory, rather than to download all splits that it has.

    Returns:
        The splits under the keys `"train"`, `"validation"` and `"test"`; those to go without, and those no file was
        given for, are absent. Features such as `ClassLabel` are kept.

    Raises:
        FileNotFoundError: A local file does not exist, or the Hub does not have `source` or cannot be reached.
        ValueError: Neither or both of `source` and files; a broken file; a split or column that is missing or empty.
    """
    files = {"train": train_file, "validation": validation_file, "test": test_file}
    files_given = _files_given(source, files)
    names: dict[str, str | None]
    if source is None:
        if train_file is None and train_split is not None:
            raise ValueError("train_file is missing; give it, or train_split=None to evaluate only")
        loaded = DatasetDict({name: load_file(file, split=name) for name, file in files_given.items()})
        names = {name: name if name in loaded else None for name in files}
    else:
        loaded = _load_source(source, subset, streaming)
        names = {"train": train_split, "validation": validation_split, "test": test_split}

    if validation_fraction is not None and names["validation"] not in loaded:
        names["validation"] = None
    splits = DatasetDict({key: _pick_split(loaded, name, f"{key}_split") for key, name in names.items() if name is not None})
    if validation_fraction is not None and "validation" not in splits:
        splits = _carve_validation(splits, validation_fraction, seed)
    for name, split in splits.items():
        _check_columns(name, split, required_columns)
    return splits


def load_shards(
    source: str | None = None,
    *,
    subset: str | None = None,
    train_file: str | Path | None = None,
    train_split: str = "train",
    required_columns: Sequence[str] = (),
) -> Shards:
    """Open the training split to read it piece by piece; see `load_splits` for the arguments.

    Returns:
        The split; each local file is a shard.

    Raises:
        FileNotFoundError: A local file does not exist, or the Hub does not have `source` or cannot be reached.
        ValueError: A file that cannot be read; a split or column that is missing or empty.
    """
    files = _files_given(source, {"train": train_file})
    if source is None:
        found = find_files(files["train"])
        shards = Shards(stream_files(found), found)
    else:
        split = _find_split(_load_source(source, subset, streaming=True), train_split, "train_split")
        shards = Shards(split.to_iterable_dataset() if isinstance(split, Dataset) else split)
    _check_columns("train", shards, required_columns)
    return shards


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


def _load_source(source: str, subset: str | None, streaming: bool) -> DatasetDict | IterableDatasetDict:
    is_dictionary = Path(source).suffix.lower() == DICTIONARY_ENDING
    if source in BUILT_IN or is_dictionary:
        if subset is not None:
            raise ValueError(f"subset={subset!r}: {source} has no subsets; leave subset out")
        return load_pronunciations(source) if is_dictionary else BUILT_IN[source]()
    if Path(source).suffix.lower() in FILE_ENDINGS:
        raise ValueError(f"source={source!r} looks like a local file; give it as train_file")
    ways_out = f"use a built-in corpus ({', '.join(BUILT_IN)}) or local files (train_file=...)"
    try:
        loaded = datasets.load_dataset(source, subset, streaming=streaming)
    except (OSError, httpx.HTTPError) as error:
        check_cache_after_failure(error)
        raise FileNotFoundError(
            f"the dataset {source!r} could not be loaded from the Hub: {str(error).rstrip('.')}. Check the id and the network"
            f"{_nearest(source, BUILT_IN)}, or {ways_out}"
        ) from error
    except (ValueError, DatasetsError) as error:
        check_cache_after_failure(error)
        # Of a file that cannot be read, the cause says why.
        reason = error.__cause__ if isinstance(error, DatasetGenerationError) else error
        raise ValueError(
            f"the dataset {source!r} (subset={subset!r}) could not be loaded: {str(reason).rstrip('.')}. Correct it, or "
            f"{ways_out}"
        ) from error
    return loaded


def _find_split(loaded: DatasetDict | IterableDatasetDict, name: str, argument: str) -> Dataset | IterableDataset:
    if name not in loaded:
        raise ValueError(
            f"there is no split {name!r}{_nearest(name, loaded)}; the splits are {', '.join(loaded)}. "
            f"Set {argument} to one of them, or to None to go without"
        )
    return loaded[name]


def _pick_split(loaded: DatasetDict | IterableDatasetDict, name: str, argument: str) -> Dataset:
    split = _find_split(loaded, name, argument)
    if isinstance(split, IterableDataset):
        return Shards(split).first_rows()
    if split.num_rows == 0:
        sizes = ", ".join(f"{key} ({value.num_rows} rows)" for key, value in loaded.items())
        raise ValueError(f"the split {name!r} is empty; the splits are {sizes}")
    return split


def _carve_validation(splits: DatasetDict, fraction: float, seed: int) -> DatasetDict:
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction={fraction} must lie between 0 and 1")
    if "train" not in splits:
        raise ValueError(f"validation_fraction={fraction} needs a training split; leave it out, or set train_split")
    rows = splits["train"].num_rows
    size = round(rows * fraction)
    if not 0 < size < rows:
        raise ValueError(
            f"validation_fraction={fraction} of {rows} training rows leaves {rows - size} rows to train on and {size} "
            "to validate on; both need at least one"
        )
    halves = splits["train"].train_test_split(test_size=size, seed=seed)
    return DatasetDict({**splits, "train": halves["train"], "validation": halves["test"]})


def _check_columns(split_name: str, split: Dataset | Shards, required_columns: Sequence[str]) -> None:
    for column in required_columns:
        if column not in split.column_names:
            raise ValueError(
                f"the split {split_name!r} has no column {column!r}{_nearest(column, split.column_names)}; "
                f"its columns are {', '.join(split.column_names)}"
            )


def _nearest(name: str, candidates: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(candidates), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
