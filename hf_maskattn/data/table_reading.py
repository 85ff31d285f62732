"""One file of rows -> Arrow tables, piece by piece. A CSV cell is text, a JSON value is what it says: nothing is guessed."""

import csv
import gzip
import json
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hf_maskattn.data.table_file import TableFile, check_utf8, no_rows, open_bytes, open_lines, unreadable

JSON = pa.json_()
"""Type of a JSON column whose values have no type in common, or hold objects: each value is kept as JSON."""

_SEPARATORS = {";": "';'", "\t": "'\\t'", "|": "'\"|\"'", ",": "','"}
"""Characters that separate cells, and how a recipe says them on a command line."""

_ROWS_READ_TOGETHER = 10_000
_CHARACTERS_READ_TOGETHER = 1 << 24
_ROWS_SIZED_TOGETHER = 100


def read_tables(file: TableFile, schema: pa.Schema | None = None) -> Iterator[pa.Table]:
    """Read a file in flat memory.

    Args:
        file: The file.
        schema: Columns to read, and their types; `None` for all columns, with the types that each piece has by itself.

    Yields:
        Up to 10,000 rows, in order. CSV columns are strings. JSON strings, numbers and booleans keep their type; a column
        of mixed types has the type `JSON`. Dictionaries and views of strings in Parquet become strings.

    Raises:
        ValueError: The file is broken, has other columns than `schema`, or values that do not fit its types; the message
            names the line.
        ImportError: The package that decompresses the file is missing.
        OSError: The file cannot be opened.
    """
    read = {"csv": _read_csv, "json": _read_json, "parquet": _read_parquet}[str(file.kind)]
    with _faults_told(file):
        yield from read(file, schema)


def count_rows(file: TableFile) -> int:
    """Count the rows of a file: of Parquet from its footer, of JSON Lines without parsing them.

    Raises:
        ValueError: The file is broken; see `read_tables`, likewise ImportError and OSError.
    """
    with _faults_told(file):
        if file.kind == "parquet":
            with open_bytes(file) as content:
                return pq.ParquetFile(content).metadata.num_rows
        if file.kind == "csv":
            return sum(1 for _ in _csv_rows(file))
        with open_lines(file, newline="\n") as lines:
            filled = (line for line in lines if line.strip())
            first = next(filled, "")
            if not _goes_over_lines(first):
                return bool(first) + sum(1 for _ in filled)
        return sum(1 for _ in _json_rows(file))


def schema_of(file: TableFile) -> pa.Schema | None:
    """Find the columns of a file: from the header of CSV, the footer of Parquet, and all rows of JSON.

    Returns:
        The columns and their types; `None` for a JSON file without rows.

    Raises:
        ValueError: The file is broken; see `read_tables`, likewise ImportError and OSError.
    """
    if file.kind == "json":
        schema = None
        for table in read_tables(file):
            schema = table.schema if schema is None else common_schema(schema, table.schema, mix=True)
        return schema
    return next(read_tables(file)).schema


def common_schema(first: pa.Schema, second: pa.Schema, *, mix: bool) -> pa.Schema:
    """Join the columns of two tables.

    Args:
        first: Columns of one table.
        second: Columns of the other.
        mix: Whether columns whose types have nothing in common get the type `JSON`.

    Returns:
        The columns of both, with types that hold the values of both.

    Raises:
        ValueError: Types have nothing in common, and `mix` is false.
    """
    types = {field.name: field.type for field in first}
    for field in second:
        common = _common_type(types.get(field.name, pa.null()), field.type)
        if common is None and not mix:
            raise ValueError(f"the column {field.name!r} is {field.type} in one file and {types[field.name]} in another")
        types[field.name] = JSON if common is None else common
    return pa.schema(list(types.items()), metadata=first.metadata)


def fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Say whether a column may be read as another type without changing what its values are.

    Args:
        found: Type of the values.
        wanted: Type that they get: whole numbers may become fractions, texts never numbers, nor numbers texts.
    """
    if pa.types.is_null(found) or found == wanted:
        return True
    if _is_list(found) and _is_list(wanted):
        return fits(found.value_type, wanted.value_type)
    if pa.types.is_integer(found) and pa.types.is_floating(wanted):
        return True
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_struct, _is_text)
    return any(is_kind(found) and is_kind(wanted) for is_kind in kinds)


def separator_hint(columns: Sequence[str]) -> str | None:
    """Say how to name the separator where a header seems to be one cell for want of it; `None` where it does not."""
    found = set(columns[0]) & _SEPARATORS.keys() if len(columns) == 1 else set()
    if not found:
        return None
    separator = max(sorted(found), key=columns[0].count)
    return (
        f"its only column is {columns[0]!r}, so that its cells seem to be separated by {separator!r}. Set "
        f"data.csv_separator={_SEPARATORS[separator]}"
    )


def line_of_row(file: TableFile, row: int) -> int | None:
    """Find the line in which a row ends, where lines have numbers.

    Args:
        file: The file.
        row: Number of the row, counted from 0.

    Returns:
        Number of the line, counted from 1; `None` for Parquet.
    """
    if file.kind == "parquet":
        return None
    lines = (line for line, _ in (_csv_rows(file) if file.kind == "csv" else _json_rows(file)))
    return next(islice(lines, row, None), None)


@contextmanager
def _faults_told(file: TableFile) -> Iterator[None]:
    """Name the file, and the line where there is one, of what cannot be read."""
    try:
        yield
    except UnicodeDecodeError as error:
        check_utf8(file)
        raise unreadable(file, error) from error
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, pa.ArrowException) as error:
        raise unreadable(file, error) from error


def _read_csv(file: TableFile, schema: pa.Schema | None) -> Iterator[pa.Table]:
    """Read a CSV file whose first row names the columns."""
    rows = _csv_rows(file, with_header=True)
    _, header = next(rows, (1, []))
    missing = [] if schema is None else [name for name in schema.names if name not in header]
    if missing:
        raise ValueError(
            f"{file}: there is no column {missing[0]!r}, which the first file has; its columns are {', '.join(header)}"
        )

    def columns_of(rows: list[list[str]]) -> dict[str, Sequence[str]]:
        return dict(zip(header, zip(*rows, strict=True), strict=True))

    is_empty = True
    for _, columns in _pieces(rows, columns_of):
        is_empty = False
        table = pa.table({name: pa.array(cells, pa.string()) for name, cells in columns.items()})
        yield table if schema is None else table.select(schema.names).cast(schema)
    if is_empty:
        raise no_rows(file)


def _csv_rows(file: TableFile, *, with_header: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Read the rows of a CSV file with the lines in which they end."""
    separator = "\t" if file.separator == "\\t" else file.separator or ("\t" if file.ending == ".tsv" else ",")
    with open_lines(file, newline="") as lines:
        reader = csv.reader(lines, delimiter=separator, strict=True)
        _, header = next(iter(_next_rows(file, reader, 1)), (1, []))
        if len(set(header)) < len(header):
            raise ValueError(f"{file}, line 1: two columns have the same name ({', '.join(header)}); rename one")
        if with_header:
            yield reader.line_num, header
        width = len(header)
        while rows := _next_rows(file, reader, _ROWS_SIZED_TOGETHER):
            for line, row in rows:
                if len(row) == width:
                    yield line, row
                elif row:
                    way_out = separator_hint(header) or f"put a cell that holds {separator!r} in double quotes"
                    raise ValueError(
                        f"{file}, line {line}: number of cells is {len(row)}, but the header has {width} "
                        f"({', '.join(header)}); {way_out}"
                    )


def _next_rows(file: TableFile, reader: Any, rows: int) -> list[tuple[int, list[str]]]:
    """Read rows with cells of any length: the limit of the csv module is one for the whole process."""
    former_limit = csv.field_size_limit(sys.maxsize)
    try:
        return [(reader.line_num, row) for row in islice(reader, rows)]
    except csv.Error as error:
        raise ValueError(f"{file}, line {reader.line_num}: broken CSV: {error}") from error
    finally:
        csv.field_size_limit(former_limit)


def _read_json(file: TableFile, schema: pa.Schema | None) -> Iterator[pa.Table]:
    """Read JSON Lines, or a list of objects."""

    def columns_of(rows: list[dict[str, Any]]) -> dict[str, Sequence[Any]]:
        names = dict.fromkeys(chain.from_iterable(rows)) if schema is None else schema.names
        return {name: [row.get(name) for row in rows] for name in names}

    for lines, columns in _pieces(_json_rows(file), columns_of):
        arrays = {name: _json_column(file, name, values, lines) for name, values in columns.items()}
        if schema is None:
            yield pa.table(arrays)
        else:
            fitted = [
                _fit_json(file, field.name, columns[field.name], lines, arrays[field.name], field.type) for field in schema
            ]
            yield pa.table(fitted, schema=schema)


def _json_column(file: TableFile, name: str, values: list[Any], lines: list[int]) -> pa.Array:
    """Give values the type that they have in common."""
    try:
        column = pa.array(values)
    except UnicodeEncodeError as error:
        line = next(line for line, value in zip(lines, values, strict=True) if _has_half_character(value))
        raise ValueError(
            f"{file}, line {line}: the column {name!r} holds half of a character (an unpaired \\ud800 to \\udfff); correct it"
        ) from error
    except (pa.ArrowException, OverflowError):
        return _as_json(values)
    return _as_json(values) if _has_objects(column.type) else column


def _fit_json(
    file: TableFile, name: str, values: list[Any], lines: list[int], column: pa.Array, wanted: pa.DataType
) -> pa.Array:
    if wanted == JSON:
        return column if column.type == JSON else _as_json(values)
    if not fits(column.type, wanted):
        for line, value in zip(lines, values, strict=True):
            if not fits(_json_column(file, name, [value], [line]).type, wanted):
                raise ValueError(
                    f"{file}, line {line}: the column {name!r} must hold values of one type, {wanted} as in the rows before, "
                    f"got {value!r}. Write all values in the same way."
                )
    return column.cast(wanted)


def _as_json(values: list[Any]) -> pa.Array:
    texts = [None if value is None else json.dumps(value) for value in values]
    return pa.ExtensionArray.from_storage(JSON, pa.array(texts, pa.string()))


def _has_half_character(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _json_rows(file: TableFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read the objects of a JSON file with the lines in which they begin."""
    with open_lines(file, newline="\n") as lines:
        numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
        first = next(numbered, None)
        if first is None:
            return
        if _goes_over_lines(first[1]):
            text = "\n" * (first[0] - 1) + first[1] + "".join(lines)
            for number, value in _json_values(file, text):
                # A list of texts is a column of texts.
                yield number, _object(file, number, {"text": value} if isinstance(value, str) else value)
            return
        for number, line in chain([first], numbered):
            try:
                value = json.loads(line.rstrip())
            except json.JSONDecodeError as error:
                raise _broken_json(file, number, error) from error
            yield number, _object(file, number, value)


def _goes_over_lines(first_line: str) -> bool:
    """Say whether a JSON file is a list, or objects over several lines, and not an object per line."""
    return first_line.lstrip().startswith("[") or first_line.rstrip().endswith(("{", "["))


def _json_values(file: TableFile, text: str) -> Iterator[tuple[int, Any]]:
    """Read the items of a list, or objects that follow each other, with the lines in which they begin."""
    is_list = text.lstrip().startswith("[")
    between = re.compile(r"[\s,]*" if is_list else r"\s*")
    decoder, position, line = json.JSONDecoder(), 0, 1
    try:
        if is_list:
            json.loads(text)
            position = text.index("[") + 1
        end = len(text.rstrip().removesuffix("]") if is_list else text.rstrip())
        while (start := between.match(text, position).end()) < end:  # type: ignore[union-attr]
            line += text.count("\n", position, start)
            value, position = decoder.raw_decode(text, start)
            yield line, value
            line += text.count("\n", start, position)
    except json.JSONDecodeError as error:
        raise _broken_json(file, error.lineno, error) from error


def _object(file: TableFile, line: int, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{file}, line {line}: a JSON object ({{...}}) was expected, got {type(value).__name__}")
    return value


def _broken_json(file: TableFile, line: int, error: json.JSONDecodeError) -> ValueError:
    return ValueError(f"{file}, line {line}: broken JSON in column {error.colno}: {error.msg}")


def _read_parquet(file: TableFile, schema: pa.Schema | None) -> Iterator[pa.Table]:
    with open_bytes(file) as content:
        parquet = pq.ParquetFile(content)
        own = parquet.schema_arrow
        plain = pa.schema([pa.field(field.name, _plain_type(field.type)) for field in own], metadata=own.metadata)
        wanted = plain if schema is None else schema
        missing = [name for name in wanted.names if name not in plain.names]
        if missing:
            raise ValueError(
                f"{file}: there is no column {missing[0]!r}, which the first file has; its columns are {', '.join(plain.names)}"
            )
        for field in wanted:
            found = plain.field(field.name).type
            if not fits(found, field.type):
                raise ValueError(f"{file}: the column {field.name!r} must be {field.type}, as in the first file, got {found}.")
        if schema is None and parquet.metadata.num_rows == 0:
            yield wanted.empty_table()
        for batch in parquet.iter_batches(_ROWS_READ_TOGETHER, columns=wanted.names):
            table = pa.Table.from_batches([batch]).select(wanted.names).cast(wanted)
            table.validate(full=True)  # reads the bytes of texts, which must be UTF-8
            yield table


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Replace dictionaries and views by what they stand for, in lists too."""
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_plain_type(kind.value_type))
    return kind


def _common_type(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """Find the type that holds the values of both; `None` where there is none."""
    if first == second or pa.types.is_null(second):
        return first
    if JSON in (first, second):
        return JSON
    schemas = [pa.schema([("column", kind)]) for kind in (first, second)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _has_objects(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) or (pa.types.is_list(kind) and _has_objects(kind.value_type))


def _pieces(
    rows: Iterator[tuple[int, Any]], columns_of: Callable[[list[Any]], dict[str, Sequence[Any]]]
) -> Iterator[tuple[list[int], dict[str, list[Any]]]]:
    """Collect numbered rows into columns, as many as are read together, or fewer if they are long.

    Rows are given up early, some at a time: Python's garbage collector would go through all that are held, again and again.
    """
    while True:
        lines: list[int] = []
        columns: dict[str, list[Any]] = {}
        characters = 0
        while len(lines) < _ROWS_READ_TOGETHER and characters < _CHARACTERS_READ_TOGETHER:
            some = list(islice(rows, _ROWS_SIZED_TOGETHER))
            if not some:
                break
            found = columns_of([row for _, row in some])
            for name in found:
                columns.setdefault(name, [None] * len(lines))
            for name, values in columns.items():
                values += found.get(name, [None] * len(some))
            lines += [line for line, _ in some]
            characters += len(some) * sum(len(values[-1]) for values in columns.values() if isinstance(values[-1], str | list))
        if not lines:
            return
        yield lines, columns
