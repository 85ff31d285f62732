"""Loads data files as one dataset through the cache of `datasets`; also the progress bars and errors of that cache."""

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import datasets
import pyarrow as pa
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import constants

from hf_maskattn.data.files import TableFile, empty_file_error, list_files
from hf_maskattn.data.schemas import merge_schemas
from hf_maskattn.data.table_reading import read_schema, read_tables

_MIN_BYTES_FOR_PROGRESS = 50_000_000


def load_file(pattern: str | Path, *, split: str, separator: str | None = None) -> datasets.Dataset:
    """Load the files that match a pattern as one dataset; see `list_files` and `load_files`."""
    return load_files(list_files(pattern, separator), split=split)


def load_files(files: Sequence[TableFile], *, split: str) -> datasets.Dataset:
    """Load files of one format as one dataset, which is stored in the cache of `datasets`.

    Args:
        files: JSON (one object per line, or a list of objects) or CSV (with a header) in UTF-8, or Parquet files.
        split: Name of the split, such as `"train"`.

    Returns:
        The rows of all files, in order. CSV cells are strings exactly as written: "NA" is a text, and "01" is not 1. JSON
        columns have the common type of all files; a column of mixed types or of objects has the feature `Json`.
        `info.builder_name` is the format of the files.

    Raises:
        ValueError: Invalid UTF-8, JSON or CSV, rows of different lengths, or an empty file; the message contains the file
            and, if there is one, the line.
        OSError: A file cannot be read, or the cache cannot be written.
        ImportError: The package that decompresses a file is not installed.
    """
    try:
        builder = _TableBuilder(
            dataset_name="files", files=tuple(files), stamps=tuple(_stamp(file) for file in files), split=split
        )
        is_long = files[0].is_remote or sum(os.path.getsize(file.path) for file in files) >= _MIN_BYTES_FOR_PROGRESS
        with progress_bars(is_long):
            builder.download_and_prepare()
    except Exception as error:
        check_cache_is_writable(error)
        if isinstance(error, DatasetGenerationError) and error.__cause__ is not None:
            raise error.__cause__ from None
        raise
    dataset = builder.as_dataset(split=split)
    dataset.info.builder_name = str(files[0].kind)
    return dataset


@dataclass
class _TableConfig(datasets.BuilderConfig):
    """Key of a cached dataset: the files and their modification times."""

    files: tuple[TableFile, ...] = ()
    stamps: tuple[Any, ...] = ()
    split: str = "train"


class _TableBuilder(datasets.ArrowBasedBuilder):
    """Writes the rows of files to the cache of `datasets`, with the common types of all files."""

    VERSION = datasets.Version("1.0.0")
    """Increase it when files are parsed differently, to invalidate cached datasets."""
    BUILDER_CONFIG_CLASS = _TableConfig

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo()

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        files = [replace(file, copy=dl_manager.download(file.path)) if file.is_remote else file for file in self.config.files]
        schema = None
        for file in files:
            file_schema = read_schema(file)
            if file_schema is None:
                raise empty_file_error(file)
            try:
                schema = file_schema if schema is None else merge_schemas(schema, file_schema, allow_mixed=file.kind == "json")
            except ValueError as error:
                raise ValueError(f"{file}: {error}") from error
        self.info.features = datasets.Features.from_arrow_schema(schema)
        return [datasets.SplitGenerator(name=self.config.split, gen_kwargs={"files": files})]

    def _generate_shards(self, files: list[TableFile]) -> Iterator[str]:
        yield from (str(file) for file in files)

    def _generate_tables(self, files: list[TableFile]) -> Iterator[tuple[tuple[int, int], pa.Table]]:
        schema = self.info.features.arrow_schema
        for file_index, file in enumerate(files):
            for table_index, table in enumerate(read_tables(file, schema)):
                yield (file_index, table_index), table


def _stamp(file: TableFile) -> tuple[str, int, int] | None:
    """Identify the version of a local file; a URL contains its revision."""
    if file.is_remote:
        return None
    status = os.stat(file.path)
    return os.path.abspath(file.path), status.st_mtime_ns, status.st_size


@contextmanager
def progress_bars(is_long: bool) -> Iterator[None]:
    """Disable the progress bars of `datasets` outside of terminals, and for work that is not long."""
    if (is_long and sys.stderr.isatty()) or datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def check_cache_is_writable(error: Exception) -> None:
    """Check whether an error in loading data means that a cache of `datasets` or of the Hub cannot be written.

    Raises:
        OSError: A cache cannot be written; the message contains its directory and the variables that set it.
    """
    caches = {"HF_DATASETS_CACHE": datasets.config.HF_DATASETS_CACHE, "HF_HUB_CACHE": constants.HF_HUB_CACHE}
    for variable, cache in caches.items():
        try:
            if not Path(cache).is_dir():
                Path(cache).mkdir(parents=True)
            with TemporaryFile(dir=cache):
                pass
        except OSError as failure:
            raise _cache_error(variable, cache, failure) from error
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _cache_error("HF_DATASETS_CACHE", caches["HF_DATASETS_CACHE"], cause) from error
        cause = cause.__cause__ or cause.__context__


def _cache_error(variable: str, cache: str | Path, failure: OSError) -> OSError:
    return OSError(
        f"{variable} must be a writable directory, got {str(cache)!r} ({failure.strerror}). Set {variable}, or HF_HOME for all "
        "caches, to another directory."
    )
