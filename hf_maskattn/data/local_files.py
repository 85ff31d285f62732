"""Files of rows -> one dataset. Every file is read by `table_reading`, wherever it comes from."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets.builder import Key
from datasets.exceptions import DatasetGenerationError

from hf_maskattn.data.cache_directory import check_cache_after_failure
from hf_maskattn.data.file_patterns import matching_files
from hf_maskattn.data.progress import bars_for_many_bytes
from hf_maskattn.data.table_file import COMPRESSIONS, FILE_ENDINGS, TableFile, no_rows
from hf_maskattn.data.table_reading import common_schema, read_tables, schema_of


def find_files(pattern: str | Path, separator: str | None = None) -> list[TableFile]:
    """Find the files that a name stands for.

    Args:
        pattern: Name of a file, or a pattern such as "data/train-*.parquet". Parts of it that exist under that name, such as
            a folder "data[1]", are taken as they are.
        separator: Character between the cells of CSV files; `None` for a tab in `.tsv` files, else a comma.

    Returns:
        The files, at least one, in the order of their names.

    Raises:
        FileNotFoundError: There is no such file, or none that fits the pattern.
        ValueError: A folder, an unknown ending, files of several kinds, a file without content, or a separator that is no
            character or has no meaning.
    """
    path = Path(pattern)
    paths = [path]
    if glob.has_magic(str(path)) and not path.exists():
        paths = matching_files(path)
        if not paths:
            raise FileNotFoundError(f"{path}: no file fits this pattern (looked from {Path.cwd()})")
    files = [TableFile(str(path), separator) for path in paths]
    for file in files:
        if Path(file.path).is_dir():
            raise ValueError(f"{file} is a folder; name its files, such as {Path(file.path) / '*.jsonl'}")
        if file.kind is None:
            raise ValueError(
                f"{file}: the ending {Path(file.path).suffix!r} is none of {', '.join(FILE_ENDINGS)}; convert the file to one "
                f"of these (text files may be compressed: {', '.join(COMPRESSIONS)})"
            )
        if file.kind != files[0].kind:
            raise ValueError(f"{path}: both {files[0].name} and {file.name} fit; give a pattern of files of one kind")
        if not Path(file.path).is_file():
            raise FileNotFoundError(f"{file}: there is no such file (looked in {Path(file.path).absolute().parent})")
        if Path(file.path).stat().st_size == 0:
            raise no_rows(file)
    check_separator(separator, files)
    return files


def load_file(pattern: str | Path, *, split: str, separator: str | None = None) -> datasets.Dataset:
    """Read one file, or several as one; see `find_files` for the names and `load_files` for what is read."""
    return load_files(find_files(pattern, separator), split=split)


def load_files(files: Sequence[TableFile], *, split: str) -> datasets.Dataset:
    """Read files of one kind as one dataset, which is kept in the cache of `datasets`.

    Args:
        files: The files: JSON (an object per line, or one list of objects), CSV (with a header) in UTF-8, or Parquet.
        split: Name that the split gets, such as `"train"`.

    Returns:
        The rows, file by file. CSV cells are strings, as they are written: "NA" is a text, "01" is not 1. JSON values keep
        their type, which is one for all files; a column of mixed types, or of objects, has the feature `Json`.
        `info.builder_name` is the kind of the files.

    Raises:
        ValueError: No UTF-8, broken JSON or CSV, rows of unequal width, or an empty file; the message names the file and,
            where there is one, the line.
        OSError: A file cannot be read, or its copy in the cache cannot be written.
        ImportError: The package that decompresses a file is missing.
    """
    try:
        builder = _TableBuilder(
            dataset_name="files", files=tuple(files), stamps=tuple(_stamp(file) for file in files), split=split
        )
        with bars_for_many_bytes(None if files[0].is_remote else sum(os.path.getsize(file.path) for file in files)):
            builder.download_and_prepare()
    except Exception as error:
        check_cache_after_failure(error)
        if isinstance(error, DatasetGenerationError) and error.__cause__ is not None:
            raise error.__cause__ from None
        raise
    loaded = builder.as_dataset(split=split)
    loaded.info.builder_name = str(files[0].kind)
    return loaded


@dataclass
class _TableConfig(datasets.BuilderConfig):
    """What a cached dataset depends on: the files, and when they were changed."""

    files: tuple[TableFile, ...] = ()
    stamps: tuple[Any, ...] = ()
    split: str = "train"


class _TableBuilder(datasets.ArrowBasedBuilder):
    """Writes the rows of files to the cache of `datasets`, with the types that all of them have in common."""

    VERSION = datasets.Version("1.0.0")
    """To be raised where files are read in another way, so that what was cached before is not used."""
    BUILDER_CONFIG_CLASS = _TableConfig

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo()

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        files = [replace(file, copy=dl_manager.download(file.path)) if file.is_remote else file for file in self.config.files]
        schema = None
        for file in files:
            own = schema_of(file)
            if own is None:
                raise no_rows(file)
            try:
                schema = own if schema is None else common_schema(schema, own, mix=file.kind == "json")
            except ValueError as error:
                raise ValueError(f"{file}: {error}") from error
        self.info.features = datasets.Features.from_arrow_schema(schema)
        return [datasets.SplitGenerator(name=self.config.split, gen_kwargs={"files": files})]

    def _generate_shards(self, files: list[TableFile]) -> Iterator[str]:
        yield from (str(file) for file in files)

    def _generate_tables(self, files: list[TableFile]) -> Iterator[tuple[Key, pa.Table]]:
        schema = self.info.features.arrow_schema
        for number, file in enumerate(files):
            for place, table in enumerate(read_tables(file, schema)):
                yield Key(number, place), table


def check_separator(separator: str | None, files: Sequence[TableFile]) -> None:
    """Refuse a separator that is no character, or that the files have no use for.

    Raises:
        ValueError: Says which.
    """
    if separator is None:
        return
    if (len(separator) != 1 and separator != r"\t") or separator in '"\r\n':
        raise ValueError(
            f"csv_separator must be one character that is no quote and no line break, got {separator!r}. Put it in quotes, "
            "such as data.csv_separator=';' or data.csv_separator='\"|\"'."
        )
    if files[0].kind != "csv":
        raise ValueError(f"csv_separator={separator!r} has no meaning for {files[0]}, which is no CSV file. Remove it.")


def _stamp(file: TableFile) -> tuple[str, int, int] | None:
    """Tell versions of a local file apart; an address names its revision."""
    if file.is_remote:
        return None
    status = os.stat(file.path)
    return os.path.abspath(file.path), status.st_mtime_ns, status.st_size
