"""Reads YAML 1.2 of recipes and overrides."""

import re
from typing import Any

import yaml


class RecipeLoader(yaml.SafeLoader):
    """Safe loader with the scalars of the YAML 1.2 core schema that rejects duplicate keys.

    YAML 1.1, the default of PyYAML, reads `2e-5` as a string and `no` as false.
    """

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 (the base class declares it so)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Build a mapping. Raise an error for a key that is given twice or is not a string."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"a key must be a string, got {key!r}", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


RecipeLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
RecipeLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$", re.I), list("tTfF"))
RecipeLoader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan)$", re.I),
    list("-+.0123456789"),
)
RecipeLoader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))


def parse_yaml(text: str, origin: str) -> Any:
    """Parse YAML.

    Args:
        text: The text.
        origin: Name of the file or option, for error messages.

    Returns:
        The value: mapping, list, string, number, bool or None.

    Raises:
        ValueError: If the text is not valid YAML, or a key is given twice. The message has the origin and the line.
    """
    try:
        return yaml.load(text, Loader=RecipeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{origin}{line}: {error.problem or error.context}.") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{origin}: {error}") from error
