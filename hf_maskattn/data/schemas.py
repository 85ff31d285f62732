"""Schemas of Arrow tables: merging the columns of several files, and safe casts."""

import pyarrow as pa

JSON = pa.json_()
"""Type of a JSON column of mixed types or of objects: each value is stored as JSON."""


def merge_schemas(first: pa.Schema, second: pa.Schema, *, allow_mixed: bool) -> pa.Schema:
    """Merge the columns of two tables, with types that can represent the values of both.

    Raises:
        ValueError: A column has no common type, and `allow_mixed` is false. Otherwise it gets the type `JSON`.
    """
    types = {field.name: field.type for field in first}
    for field in second:
        common = _common_type(types.get(field.name, pa.null()), field.type)
        if common is None and not allow_mixed:
            raise ValueError(
                f"the column {field.name!r} must have one type in all files, got {types[field.name]} and {field.type}. Convert "
                "one of the files."
            )
        types[field.name] = JSON if common is None else common
    return pa.schema(list(types.items()), metadata=first.metadata)


def check_schema(schema: pa.Schema, expected: pa.Schema, *, name: str, first: str) -> None:
    """Check that a table has the expected columns, and that they can be cast to the expected types.

    Messages have the name of the table, and what the columns are expected from: the first "file" or "shard".

    Raises:
        ValueError: A column is missing, or has another type.
    """
    for field in expected:
        if field.name not in schema.names:
            raise ValueError(
                f"{name}: the column {field.name!r} of the first {first} is missing. The columns are {', '.join(schema.names)}."
            )
    for field in expected:
        source = schema.field(field.name).type
        if not is_castable(source, field.type):
            raise ValueError(f"{name}: the column {field.name!r} must be {field.type}, as in the first {first}, got {source}.")


def is_castable(source: pa.DataType, target: pa.DataType) -> bool:
    """Return whether a column can be cast without changing the meaning of its values.

    Integers may become floats, but strings never numbers, nor numbers strings.
    """
    if pa.types.is_null(source) or source == target:
        return True
    if _is_list(source) and _is_list(target):
        return is_castable(source.value_type, target.value_type)
    if pa.types.is_integer(source) and pa.types.is_floating(target):
        return True
    type_classes = (pa.types.is_integer, pa.types.is_floating, pa.types.is_struct, _is_string)
    return any(is_member(source) and is_member(target) for is_member in type_classes)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Replace dictionary and view types by the types of their values, also in lists."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list(kind):
        return pa.list_(plain_type(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(plain_type(kind.value_type))
    return kind


def _common_type(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """Return the type that can represent the values of both; `None` if there is none."""
    if first == second or pa.types.is_null(second):
        return first
    if JSON in (first, second):
        return JSON
    schemas = [pa.schema([("column", kind)]) for kind in (first, second)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def has_objects(kind: pa.DataType) -> bool:
    """Return whether a type holds objects, possibly in lists."""
    return pa.types.is_struct(kind) or (pa.types.is_list(kind) and has_objects(kind.value_type))
