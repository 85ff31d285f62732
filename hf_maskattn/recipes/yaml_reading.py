"""YAML as people mean it: `2e-5` is a number, `no` is a word, and a key given twice is a mistake."""

import re
from typing import Any

import yaml


class RecipeLoader(yaml.SafeLoader):
    """Safe loader with the scalars of the YAML 1.2 core schema, that refuses duplicate keys.

    YAML 1.1, which PyYAML reads by default, takes `2e-5` for a string and `no` for false.
    """

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 (the base class declares it so)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Build a mapping, refusing a key that is given twice."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
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
    """Parse YAML text.

    Args:
        text: The text.
        origin: Where it comes from, for error messages.

    Returns:
        The value: mapping, list, string, number, bool or None.

    Raises:
        ValueError: If the text is not YAML, or a key is given twice; names origin and line.
    """
    try:
        return yaml.load(text, Loader=RecipeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{origin}{line}: {error.problem or error.context}.") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{origin}: {error}") from error
