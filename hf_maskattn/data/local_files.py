"""One local file -> one dataset, read by the loaders of `datasets`; what is wrong with a file is told by its line."""

import csv
import json
import sys
from pathlib import Path

import datasets

_LOADERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
_LOADER_SETTINGS: dict[str, dict[str, object]] = {
    "json": {"parse_agent_traces": False},
    # pandas would turn the texts "NA", "None", "null" and the like into missing values.
    "csv": {"keep_default_na": False},
    "parquet": {},
}
FILE_ENDINGS = tuple(_LOADERS)
"""The endings of the files that can be read."""


def load_file(path: str | Path, *, split: str) -> datasets.Dataset:
    """Read one file with the loader of `datasets` that its ending names.

    Args:
        path: A `.jsonl` or `.json` (an object per line, or one list of objects), `.csv` (with a header) or
            `.parquet` file, in UTF-8.
        split: Name that the split gets, such as `"train"`.

    Returns:
        The rows of the file. CSV cells are kept as they are written: "NA" is a text, not a missing value.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Unknown ending, no UTF-8, broken JSON, rows of unequal width, or an empty file; the message
            names the file and, where there is one, the line.
    """
    path = Path(path)
    loader = _LOADERS.get(path.suffix.lower())
    if loader is None:
        raise ValueError(
            f"{path}: the ending {path.suffix!r} is none of {', '.join(FILE_ENDINGS)}; convert the file to one of these"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file (looked in {path.absolute().parent})")
    if path.stat().st_size == 0:
        raise _no_rows(path)
    if loader != "parquet":
        check_utf8(path)
    if loader == "csv":
        _check_csv_rows(path)
    try:
        # Absolute, so that no part of the name is taken for an address on the Hub.
        return datasets.load_dataset(loader, data_files={split: str(path.absolute())}, split=split, **_LOADER_SETTINGS[loader])
    except Exception as error:
        if loader == "json":
            _check_json_lines(path)
        reason = error.__cause__ or error
        raise ValueError(f"{path}: {loader} could not be read: {type(reason).__name__}: {reason}") from error


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
