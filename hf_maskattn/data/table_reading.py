"""Reads a data file as Arrow tables. CSV cells are strings and JSON values keep their types: nothing is guessed."""

import csv
import gzip
import json
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hf_maskattn.data.files import (
    TableFile,
    check_utf8,
    empty_file_error,
    has_unpaired_surrogate,
    open_bytes,
    open_lines,
    separator_hint,
    unreadable_error,
)
from hf_maskattn.data.schemas import JSON, check_schema, has_objects, is_castable, merge_schemas, plain_type

_MAX_ROWS_PER_TABLE = 10_000
_MAX_CHARACTERS_PER_TABLE = 1 << 24
_ROWS_PER_STEP = 100


def read_tables(file: TableFile, schema: pa.Schema | None = None) -> Iterator[pa.Table]:
    """Read a file with bounded memory.

    Args:
        file: The file.
        schema: Columns to read, and their types. `None` for all columns, with the types inferred for each table.

    Yields:
        Tables of up to 10,000 rows, in order. CSV columns are strings. JSON strings, numbers and booleans keep their types; a
        column of mixed types has the type `JSON`. Dictionary and string-view columns of Parquet become strings.

    Raises:
        ValueError: The file is invalid, lacks a column of `schema`, or has values that do not match its types; the message
            contains the line.
        ImportError: The package that decompresses the file is not installed.
        OSError: The file cannot be opened.
    """
    read = {"csv": _read_csv, "json": _read_json, "parquet": _read_parquet}[str(file.kind)]
    with _named_errors(file):
        yield from read(file, schema)


def read_rows(file: TableFile) -> Iterator[dict[str, Any]]:
    """Read the rows of a file one by one, each with its own columns: CSV cells are strings, JSON values stay as written.

    Raises:
        ValueError, ImportError, OSError: As in `read_tables`.
    """
    with _named_errors(file):
        if file.kind == "json":
            yield from (row for _, row in _json_rows(file))
        elif file.kind == "csv":
            rows = _csv_rows(file)
            _, header = next(rows)
            yield from (dict(zip(header, cells, strict=True)) for _, cells in rows)
        else:
            for table in _read_parquet(file, None):
                yield from table.to_pylist()


def count_rows(file: TableFile) -> int:
    """Count the rows of a file: of Parquet from its footer, of JSON Lines without parsing them.

    Raises:
        ValueError, ImportError, OSError: As in `read_tables`.
    """
    with _named_errors(file):
        if file.kind == "parquet":
            with open_bytes(file) as content:
                return pq.ParquetFile(content).metadata.num_rows
        if file.kind == "csv":
            return sum(1 for _ in _csv_rows(file)) - 1
        with open_lines(file, newline="\n") as lines:
            non_blank = (line for line in lines if line.strip())
            first = next(non_blank, "")
            if not _is_multiline(first):
                return bool(first) + sum(1 for _ in non_blank)
        return sum(1 for _ in _json_rows(file))


def read_schema(file: TableFile) -> pa.Schema | None:
    """Read the columns of a file: from the header of CSV, the footer of Parquet, and all rows of JSON.

    Returns:
        The columns and their types; `None` for a JSON file without rows.

    Raises:
        ValueError, ImportError, OSError: As in `read_tables`.
    """
    if file.kind == "json":
        schema = None
        for table in read_tables(file):
            schema = table.schema if schema is None else merge_schemas(schema, table.schema, allow_mixed=True)
        return schema
    return next(read_tables(file)).schema


def read_header(file: TableFile) -> list[str]:
    """Read the names of the columns of a CSV file.

    Raises:
        ValueError, ImportError, OSError: As in `read_tables`.
    """
    with _named_errors(file):
        return next(_csv_rows(file))[1]


@dataclass(frozen=True)
class RowLocation:
    """Location of a row, for error messages. Its line is looked up only when the location is formatted.

    Attributes:
        row: Zero-based index of the row in its files, or in `source`.
        files: Files that contain the rows, in order. Empty if the rows do not come from files.
        source: Name of the source of rows that do not come from files. Empty for the split itself.
    """

    row: int
    files: Sequence[TableFile] = ()
    source: str = ""

    def __str__(self) -> str:
        """Format as "train.csv, line 7", or as "row 5 of train.parquet (counted from 0)"."""
        found = next(islice(_places(self.files), self.row, None), None)
        if found is not None:
            return _describe_place(*found)
        return f"row {self.row}{f' of {self.source}' if self.source else ''} (counted from 0)"


@dataclass(frozen=True)
class RowLocations:
    """Locations of the rows of a split.

    Attributes:
        files: Files that contain the rows, in order. Empty if the rows do not come from files.
        rows: Index of each row in the files. `None` for rows in the order of the files.
    """

    files: Sequence[TableFile] = ()
    rows: Sequence[int] | None = None

    def __getitem__(self, row: int) -> RowLocation:
        """Return the location of a row of the split."""
        return RowLocation(row if self.rows is None else int(self.rows[row]), self.files)

    def describe(self, rows: Sequence[int]) -> dict[int, str]:
        """Format the locations of many rows, by their indices. Each file is read once.

        Returns:
            The location of each row in a local file, by its index. Empty for rows from elsewhere.
        """
        if any(file.is_remote for file in self.files):
            return {}
        in_files = {self[row].row: row for row in rows}
        places = enumerate(_places(self.files))
        return {in_files[row]: _describe_place(*place) for row, place in places if row in in_files}

    def select(self, rows: Sequence[int]) -> "RowLocations":
        """Return the locations of a subset of the rows."""
        return RowLocations(self.files, [self[row].row for row in rows])


def _places(files: Iterable[TableFile]) -> Iterator[tuple[TableFile, int]]:
    """Yield the file of each row, and its line: where it ends in CSV, where it begins in JSON. For Parquet, its index."""
    for file in files:
        if file.kind == "parquet":
            yield from ((file, row) for row in range(count_rows(file)))
        else:
            rows = islice(_csv_rows(file), 1, None) if file.kind == "csv" else _json_rows(file)
            yield from ((file, line) for line, _ in rows)


def _describe_place(file: TableFile, place: int) -> str:
    return f"row {place} of {file} (counted from 0)" if file.kind == "parquet" else f"{file}, line {place}"


@contextmanager
def _named_errors(file: TableFile) -> Iterator[None]:
    """Add the name of the file, and the line if there is one, to errors."""
    try:
        yield
    except UnicodeDecodeError as error:
        check_utf8(file)
        raise unreadable_error(file, error) from error
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, pa.ArrowException) as error:
        raise unreadable_error(file, error) from error


def _read_csv(file: TableFile, schema: pa.Schema | None) -> Iterator[pa.Table]:
    """Read a CSV file whose first row names the columns."""
    rows = _csv_rows(file)
    _, header = next(rows)
    missing = [] if schema is None else [name for name in schema.names if name not in header]
    if missing:
        raise ValueError(
            f"{file}: the column {missing[0]!r} of the first file is missing. The columns are {', '.join(header)}."
        )

    def transpose(rows: list[list[str]]) -> dict[str, Sequence[str]]:
        return dict(zip(header, zip(*rows, strict=True), strict=True))

    is_empty = True
    for _, columns in _column_chunks(rows, transpose):
        is_empty = False
        table = pa.table({name: pa.array(cells, pa.string()) for name, cells in columns.items()})
        yield table if schema is None else table.select(schema.names).cast(schema)
    if is_empty:
        raise empty_file_error(file)


def _csv_rows(file: TableFile) -> Iterator[tuple[int, list[str]]]:
    """Yield the header of a CSV file, which is empty if the file is, and its rows, each with the line where it ends."""
    separator = "\t" if file.separator == "\\t" else file.separator or ("\t" if file.suffix == ".tsv" else ",")
    with open_lines(file, newline="") as lines:
        reader = csv.reader(lines, delimiter=separator, strict=True)
        _, header = next(iter(_next_rows(file, reader, 1)), (1, []))
        if len(set(header)) < len(header):
            raise ValueError(f"{file}, line 1: column names must be unique, got {', '.join(header)}. Rename one.")
        yield reader.line_num, header
        width = len(header)
        while rows := _next_rows(file, reader, _ROWS_PER_STEP):
            for line, row in rows:
                if separator == "\t" and any("\t" in cell and "\n" in cell for cell in row):
                    raise ValueError(
                        f"{file}, line {line}: a cell in double quotes has tabs and line breaks, as if it had swallowed rows. "
                        "If double quotes are part of a text, quote its cell, and write each of them twice. Otherwise save the "
                        "file as JSON Lines."
                    )
                if len(row) == width:
                    yield line, row
                elif row:
                    way_out = separator_hint(header) or f"Put a cell that contains {separator!r} in double quotes."
                    raise ValueError(
                        f"{file}, line {line}: number of cells must be {width} as in the header ({', '.join(header)}), got "
                        f"{len(row)}. {way_out}"
                    )


def _next_rows(file: TableFile, reader: Any, rows: int) -> list[tuple[int, list[str]]]:
    """Read rows with cells of any length. The limit of the csv module is global, so it is restored."""
    previous_limit = csv.field_size_limit(sys.maxsize)
    try:
        return [(reader.line_num, row) for row in islice(reader, rows)]
    except csv.Error as error:
        raise ValueError(
            f"{file}, line {reader.line_num}: invalid CSV: {error}. Write a double quote within a quoted cell twice, or set "
            "data.csv_separator if another character separates the cells."
        ) from error
    finally:
        csv.field_size_limit(previous_limit)


def _read_json(file: TableFile, schema: pa.Schema | None) -> Iterator[pa.Table]:
    """Read JSON Lines, or a list of objects."""

    def transpose(rows: list[dict[str, Any]]) -> dict[str, Sequence[Any]]:
        names = dict.fromkeys(chain.from_iterable(rows)) if schema is None else schema.names
        return {name: [row.get(name) for row in rows] for name in names}

    for lines, columns in _column_chunks(_json_rows(file), transpose):
        arrays = {name: _json_column(file, name, values, lines) for name, values in columns.items()}
        if schema is None:
            yield pa.table(arrays)
        else:
            cast = [
                _cast_json(file, field.name, columns[field.name], lines, arrays[field.name], field.type) for field in schema
            ]
            yield pa.table(cast, schema=schema)


def _json_column(file: TableFile, name: str, values: list[Any], lines: list[int]) -> pa.Array:
    """Build a column with the common type of its values."""
    try:
        column = pa.array(values)
    except UnicodeEncodeError as error:
        line = next(line for line, value in zip(lines, values, strict=True) if has_unpaired_surrogate(value))
        raise ValueError(
            f"{file}, line {line}: the column {name!r} contains an unpaired surrogate (\\ud800 to \\udfff). Correct the text."
        ) from error
    except (pa.ArrowException, OverflowError):
        if any(value != value for value in values):  # among texts, NaN is a missing value
            return _json_column(file, name, [None if value != value else value for value in values], lines)
        return _as_json(values)
    return _as_json(values) if has_objects(column.type) else column


def _cast_json(
    file: TableFile, name: str, values: list[Any], lines: list[int], column: pa.Array, target: pa.DataType
) -> pa.Array:
    if target == JSON:
        return column if column.type == JSON else _as_json(values)
    if not is_castable(column.type, target):
        for line, value in zip(lines, values, strict=True):
            if not is_castable(_json_column(file, name, [value], [line]).type, target):
                raise ValueError(
                    f"{file}, line {line}: the column {name!r} must have values of one type, {target} as in earlier rows, got "
                    f"{value!r}. Convert the values to one type."
                )
    return column.cast(target)


def _as_json(values: list[Any]) -> pa.Array:
    texts = [None if value is None else json.dumps(value) for value in values]
    return pa.ExtensionArray.from_storage(JSON, pa.array(texts, pa.string()))


def _json_rows(file: TableFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a JSON file, each with the line where it begins."""
    with open_lines(file, newline="\n") as lines:
        numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
        first = next(numbered, None)
        if first is None:
            return
        if _is_multiline(first[1]):
            text = "\n" * (first[0] - 1) + first[1] + "".join(lines)
            for number, value in _json_values(file, text):
                # A list of strings becomes a column of texts.
                yield number, _object(file, number, {"text": value} if isinstance(value, str) else value)
            return
        for number, line in chain([first], numbered):
            try:
                value = json.loads(line.rstrip(), object_pairs_hook=_unique_keys)
            except ValueError as error:
                raise _invalid_json_error(file, number, error) from error
            yield number, _object(file, number, value)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object of JSON, none of whose keys may be given twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {max(names, key=names.count)!r} is given twice in an object. Remove one of them.")
    return values


def _is_multiline(first_line: str) -> bool:
    """Return whether a JSON file is a list, or objects that span lines, rather than one object per line."""
    return first_line.lstrip().startswith("[") or first_line.rstrip().endswith(("{", "["))


def _json_values(file: TableFile, text: str) -> Iterator[tuple[int, Any]]:
    """Yield the items of a list, or consecutive objects, each with the line where it begins."""
    is_list = text.lstrip().startswith("[")
    separators = re.compile(r"[\s,]*" if is_list else r"\s*")
    decoder, position, line = json.JSONDecoder(object_pairs_hook=_unique_keys), 0, 1
    try:
        if is_list:
            json.loads(text)
            position = text.index("[") + 1
        end = len(text.rstrip().removesuffix("]") if is_list else text.rstrip())
        while (start := separators.match(text, position).end()) < end:  # type: ignore[union-attr]
            line += text.count("\n", position, start)
            value, position = decoder.raw_decode(text, start)
            yield line, value
            line += text.count("\n", start, position)
    except ValueError as error:
        raise _invalid_json_error(file, getattr(error, "lineno", line), error) from error


def _object(file: TableFile, line: int, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{file}, line {line}: each row must be a JSON object ({{...}}), got {type(value).__name__}.")
    return value


def _invalid_json_error(file: TableFile, line: int, error: ValueError) -> ValueError:
    if isinstance(error, json.JSONDecodeError):
        return ValueError(f"{file}, line {line}: invalid JSON in column {error.colno}: {error.msg}.")
    return ValueError(f"{file}, line {line}: {error}")


def _read_parquet(file: TableFile, schema: pa.Schema | None) -> Iterator[pa.Table]:
    with open_bytes(file) as content:
        parquet = pq.ParquetFile(content)
        fields = [pa.field(field.name, plain_type(field.type)) for field in parquet.schema_arrow]
        file_schema = pa.schema(fields, metadata=parquet.schema_arrow.metadata)
        schema = file_schema if schema is None else schema
        check_schema(file_schema, schema, name=str(file), first="file")
        if schema is file_schema and parquet.metadata.num_rows == 0:
            yield schema.empty_table()
        for batch in parquet.iter_batches(_MAX_ROWS_PER_TABLE, columns=schema.names):
            table = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
            table.validate(full=True)  # also checks that strings are UTF-8
            yield table


def _column_chunks(
    rows: Iterator[tuple[int, Any]], transpose: Callable[[list[Any]], dict[str, Sequence[Any]]]
) -> Iterator[tuple[list[int], dict[str, list[Any]]]]:
    """Collect numbered rows into columns, with a limit on the rows and on their total length.

    Rows are transposed in small steps, because Python's garbage collector would repeatedly traverse all rows that are alive.
    """
    while True:
        lines: list[int] = []
        columns: dict[str, list[Any]] = {}
        characters = 0
        while len(lines) < _MAX_ROWS_PER_TABLE and characters < _MAX_CHARACTERS_PER_TABLE:
            step_rows = list(islice(rows, _ROWS_PER_STEP))
            if not step_rows:
                break
            step_columns = transpose([row for _, row in step_rows])
            for name in step_columns:
                columns.setdefault(name, [None] * len(lines))
            for name, values in columns.items():
                values += step_columns.get(name, [None] * len(step_rows))
            lines += [line for line, _ in step_rows]
            characters += len(step_rows) * sum(
                len(values[-1]) for values in columns.values() if isinstance(values[-1], str | list)
            )
        if not lines:
            return
        yield lines, columns
