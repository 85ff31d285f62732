"""Local files -> one dataset, read by the loaders of `datasets`; what is wrong with a file is told by its line."""

import csv
import glob
import json
import sys
from pathlib import Path
from typing import Any

import datasets

from hf_maskattn.data.cache_directory import check_cache_after_failure

_LOADERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
_LOADER_SETTINGS: dict[str, dict[str, object]] = {
    "json": {"parse_agent_traces": False},
    # pandas would turn the texts "NA", "None", "null" and the like into missing values.
    "csv": {"keep_default_na": False},
    "parquet": {},
}
FILE_ENDINGS = tuple(_LOADERS)
"""The endings of the files that can be read."""


def find_files(pattern: str | Path) -> list[Path]:
    """Find the files that a name stands for.

    Args:
        pattern: Name of a file, or a pattern such as "data/train-*.parquet".

    Returns:
        The files, at least one, in the order of their names; one loader reads them all.

    Raises:
        FileNotFoundError: There is no such file, or none that fits the pattern.
        ValueError: A folder, an unknown ending, files of several kinds, or a file without content.
    """
    path = Path(pattern)
    files = [path]
    if glob.has_magic(str(path)) and not path.exists():
        files = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
        if not files:
            raise FileNotFoundError(f"{path}: no file fits this pattern (looked from {Path.cwd()})")
    for file in files:
        if file.is_dir():
            raise ValueError(f"{file} is a folder; name its files, such as {file / '*.jsonl'}")
        if file.suffix.lower() not in _LOADERS:
            raise ValueError(
                f"{file}: the ending {file.suffix!r} is none of {', '.join(FILE_ENDINGS)}; convert the file to one of these"
            )
        if _loader(file) != _loader(files[0]):
            raise ValueError(f"{path}: both {files[0].name} and {file.name} fit; give a pattern of files of one kind")
        if not file.is_file():
            raise FileNotFoundError(f"{file}: there is no such file (looked in {file.absolute().parent})")
        if file.stat().st_size == 0:
            raise _no_rows(file)
    return files


def load_file(pattern: str | Path, *, split: str) -> datasets.Dataset:
    """Read one file, or several as one, with the loader of `datasets` that the ending names.

    Args:
        pattern: A `.jsonl` or `.json` (an object per line, or one list of objects), `.csv` (with a header) or
            `.parquet` file, in UTF-8, or a pattern such as "data/train-*.parquet" (see `find_files`).
        split: Name that the split gets, such as `"train"`.

    Returns:
        The rows, file by file. CSV cells are kept as they are written: "NA" is a text, not a missing value.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The cache directory cannot be written to.
        ValueError: Unknown ending, no UTF-8, broken JSON, rows of unequal width, or an empty file; the message
            names the file and, where there is one, the line.
    """
    files = find_files(pattern)
    for file in files:
        check_file(file)
    try:
        return _load(files, split=split)
    except Exception as error:
        check_cache_after_failure(error)
        for file in files:
            check_file_after_failure(file)
        raise unreadable(pattern, error) from error


def stream_files(files: list[Path]) -> datasets.IterableDataset:
    """Open files that `find_files` found, to be read row by row; each is a shard. Nothing is checked before it is read.

    Raises:
        ValueError: The first file cannot be read.
    """
    try:
        return _load(files, split="train", streaming=True)
    except Exception as error:
        check_file_after_failure(files[0])
        raise unreadable(files[0], error) from error


def check_file(file: Path) -> None:
    """Find what the loaders of `datasets` would let through or tell without a line.

    Raises:
        ValueError: No UTF-8, or a CSV file with rows of unequal width or none.
    """
    if _loader(file) != "parquet":
        check_utf8(file)
    if _loader(file) == "csv":
        _check_csv_rows(file)


def check_file_after_failure(file: Path) -> None:
    """Find the line of a file that could not be read.

    Raises:
        ValueError: If there is one.
    """
    check_file(file)
    if _loader(file) == "json":
        _check_json_lines(file)


def unreadable(name: str | Path, error: Exception) -> ValueError:
    """Say that rows could not be read, and why."""
    reason = error.__cause__ or error
    return ValueError(f"{name}: could not be read: {type(reason).__name__}: {' '.join(str(reason).split())}")


def _loader(file: Path) -> str:
    return _LOADERS[file.suffix.lower()]


def _load(files: list[Path], **settings: Any) -> Any:
    loader = _loader(files[0])
    # Absolute, so that no part of a name is taken for an address on the Hub.
    names = [glob.escape(str(file.absolute())) for file in files]
    return datasets.load_dataset(loader, data_files={settings["split"]: names}, **settings, **_LOADER_SETTINGS[loader])


def check_utf8(path: Path) -> None:
    """Refuse other encodings before reading: the JSON loader lets broken bytes through, to fail much later.

    Args:
        path: A file that exists.

    Raises:
        ValueError: It is not UTF-8; the message names the line.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}: not UTF-8 ({error.reason}: byte 0x{line[error.start]:02x}); save the file as UTF-8"
                ) from error


def _check_csv_rows(path: Path) -> None:
    """Refuse rows of unequal width: pandas would fill a short one with missing values."""
    former_limit = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if len(set(header)) < len(header):
                raise ValueError(f"{path}, line 1: two columns have the same name ({', '.join(header)}); rename one")
            rows = 0
            for row in reader:
                if row and len(row) != len(header):
                    raise ValueError(
                        f"{path}, line {reader.line_num}: number of cells is {len(row)}, but the header has "
                        f"{len(header)} ({', '.join(header)}); put a cell that holds a comma in double quotes"
                    )
                rows += bool(row)
            if rows == 0:
                raise _no_rows(path)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: broken CSV: {error}") from error
    finally:
        csv.field_size_limit(former_limit)


def _check_json_lines(path: Path) -> None:
    """Find the first line that is no JSON object; return if the file is a list, or every line is an object."""
    rows = 0
    with path.open(encoding="utf-8-sig") as file:
        if file.read(1) == "[":
            file.seek(0)
            try:
                json.load(file)
            except json.JSONDecodeError as error:
                raise _broken_json(path, error.lineno, error) from error
            return
        file.seek(0)
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line.rstrip())
            except json.JSONDecodeError as error:
                raise _broken_json(path, number, error) from error
            if not isinstance(value, dict):
                raise ValueError(f"{path}, line {number}: a JSON object ({{...}}) was expected, got {type(value).__name__}")
            rows += 1
    if rows == 0:
        raise _no_rows(path)


def _broken_json(path: Path, line: int, error: json.JSONDecodeError) -> ValueError:
    return ValueError(f"{path}, line {line}: broken JSON in column {error.colno}: {error.msg}")


def _no_rows(path: Path) -> ValueError:
    return ValueError(f"{path}: the file has no rows; give a file with at least one")
