"""The typed fields that a class declares, read from its source, so that a recipe is checked without waiting for torch."""

import ast
import builtins
import pathlib
import typing
from enum import Enum
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@cache
def declared_fields(module: str, class_name: str) -> dict[str, Any]:
    """List the fields that a dataclass declares in its own body, without importing its module.

    Args:
        module: Full name of the module; only its top package is looked up, none is imported.
        class_name: Name of the class.

    Returns:
        Type of each field, by name, in the order of the source. An enum has the values of the source; any other class is
        an empty class of that name, of which no value of a file is an instance. An annotation that cannot be evaluated
        is `Any`: the class itself checks such a field.
    """
    fields = {}
    for node in _class_node(module, class_name).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            annotation = _evaluate(node.annotation, module)
            if typing.get_origin(annotation) is not typing.ClassVar:
                fields[node.target.id] = annotation
    return fields


def _evaluate(annotation: ast.expr, module: str) -> Any:
    try:
        return eval(ast.unparse(annotation), {}, _Names(module))
    except (AttributeError, TypeError):
        return Any


class _Names(dict):
    """What the names in the annotations of a module stand for."""

    def __init__(self, module: str):
        super().__init__({"Path": pathlib.Path, **vars(typing), **vars(builtins)})
        self._module = module

    def __missing__(self, name: str) -> type:
        """Look a class up in the module, and one step further where the module imports it from its own package."""
        for node in ast.walk(_tree(self._module)):
            if isinstance(node, ast.ClassDef) and node.name == name:
                return _enum(node) or type(name, (), {})
            if isinstance(node, ast.ImportFrom) and node.level == 1 and name in {alias.name for alias in node.names}:
                source = f"{self._module.rpartition('.')[0]}.{node.module}"
                return _enum(_class_node(source, name)) or type(name, (), {})
        return type(name, (), {})


def _enum(node: ast.ClassDef) -> type | None:
    values = {
        item.targets[0].id: item.value.value
        for item in node.body
        if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name) and isinstance(item.value, ast.Constant)
    }
    is_enum = any(isinstance(base, ast.Name) and base.id.endswith("Enum") for base in node.bases)
    return typing.cast(type, Enum(node.name, values)) if is_enum else None


def _class_node(module: str, class_name: str) -> ast.ClassDef:
    (found,) = (node for node in _tree(module).body if isinstance(node, ast.ClassDef) and node.name == class_name)
    return found


@cache
def _tree(module: str) -> ast.Module:
    package, *rest = module.split(".")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{package} is not installed.")
    path = Path(spec.submodule_search_locations[0], *rest).with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))
