"""Reads a recipe: a YAML file with the groups `model`, `data` and `training`, and changes from the command line."""

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from hf_maskattn.data.tokenizers import KINDS
from hf_maskattn.recipes.arguments import (
    NOT_IN_A_RECIPE,
    ONLY_FOR,
    SEQ2SEQ,
    TASKS,
    DataArguments,
    ModelArguments,
    check_key,
    check_lengths,
    check_stream,
    check_value,
    settable_fields,
    suggestion,
)
from hf_maskattn.recipes.shipped_recipes import shipped_recipes


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


GROUPS = ("model", "data", "training")

_STORED_NAMES = {SEQ2SEQ: "text2text-generation"}
_USUAL_NAMES = {stored: name for name, stored in _STORED_NAMES.items()}
_TASKS_ELSEWHERE = {
    "sentiment-analysis": "text-classification",
    "sequence-classification": "text-classification",
    "ner": "token-classification",
    "mlm": "fill-mask",
    "masked-lm": "fill-mask",
    "translation": SEQ2SEQ,
    "summarization": SEQ2SEQ,
    "text-generation": SEQ2SEQ,
    "text-to-text": SEQ2SEQ,
    "text2text": SEQ2SEQ,
}
"""What pipelines and classes of transformers call tasks that have another name here."""


@dataclass(frozen=True)
class Recipe:
    """A checked recipe.

    Args:
        name: Name of the file without its suffix.
        model: What model is trained.
        data: What it is trained on.
        training: Fields of `TrainingArguments` that were set.
    """

    name: str
    model: ModelArguments
    data: DataArguments
    training: dict[str, Any]

    @property
    def label_column(self) -> str:
        """Column with the labels."""
        return self.data.label_column or ("tags" if self.model.task == "token-classification" else "label")

    def has_split(self, split: str) -> bool:
        """Tell whether there is a "train", "validation" or "test" split."""
        data = self.data
        if split == "validation" and data.validation_fraction is not None:
            return True
        return getattr(data, f"{split}_file" if data.source is None else f"{split}_split") is not None


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: The YAML file, or the name of a recipe that comes with this package, such as "language_identification".
        overrides: Changes, as "group.key=value" with the value in YAML; later ones win.

    Returns:
        The recipe.

    Raises:
        OSError: If there is no such file; names the way out.
        ValueError: If the file is not YAML, a key does not exist, may not be set, is missing, or does not go with the
            others; names the file or the override, the key, and the way out.
        TypeError: If a value has the wrong type; likewise.
    """
    path = _find_recipe(Path(path))
    groups = _read_groups(path)
    origins = {(group, key): str(path) for group, values in groups.items() for key in values}
    for override in overrides:
        group, key, value = parse_override(override)
        groups[group][key] = value
        origins[group, key] = f"override {f'{group}.{key}'!r}"
    for (group, key), origin in origins.items():
        _check_field(group, key, groups[group][key], origin)
    task = groups["model"].get("task")
    if task is not None:
        groups["model"]["task"] = _STORED_NAMES.get(task, task)
    return _build(path.stem, groups)


def read_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Deprecated name of `load_recipe`."""
    warnings.warn("read_recipe is deprecated. Use load_recipe.", FutureWarning, stacklevel=2)
    return load_recipe(path, overrides)


def _find_recipe(path: Path) -> Path:
    return path if path.is_file() else shipped_recipes().get(str(path), path)


def _read_groups(path: Path) -> dict[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise FileNotFoundError(_where_a_recipe_is(path)) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}).") from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise TypeError(f"{path} holds no groups: a recipe has {', '.join(f'`{group}:`' for group in GROUPS)}.")
    for group, values in content.items():
        if group not in GROUPS:
            raise ValueError(f"{path}: group `{group}:` does not exist, there are: {', '.join(GROUPS)}.")
        if values is not None and not isinstance(values, dict):
            raise TypeError(f"{path}: `{group}:` holds no `key: value` lines.")
    return {group: dict(content.get(group) or {}) for group in GROUPS}


def _where_a_recipe_is(path: Path) -> str:
    """Say what to pass in place of a path that is no file."""
    if (path / "recipe.yaml").is_file():
        return f"{path} is a folder, its recipe is {path / 'recipe.yaml'}."
    name, equals, _ = str(path).partition("=")
    if equals:  # what follows may be a token
        return f"There is no recipe `{name}=...`: the recipe comes first, changes (group.key=value) after it."
    near = suggestion(str(path), shipped_recipes())
    if near is not None:
        return f"There is no recipe {path}. Did you mean {near}?"
    return (
        f"There is no recipe {path}. Pass a YAML file (a run has its own, recipe.yaml in its folder) or the name of one that "
        "`hf-maskattn recipes` lists; `hf-maskattn init TASK FILE` writes one for your data."
    )


def parse_override(override: str) -> tuple[str, str, Any]:
    """Parse a change to a recipe.

    Args:
        override: "group.key=value", with the value in YAML.

    Returns:
        Group, key and value.

    Raises:
        ValueError: If it has another form; does not repeat the value.
    """
    name, equals, text = override.partition("=")
    # The value may be a token, in the wrong place.
    origin = f"override {name!r}" if equals else "an override without `=`"
    group, dot, key = name.partition(".")
    if not (equals and dot and key) or group not in GROUPS:
        raise ValueError(f"{origin} is not of the form group.key=value with the group {', '.join(GROUPS)}.")
    return group, key, parse_yaml(text, origin)


def _check_field(group: str, key: str, value: Any, origin: str) -> None:
    """Check the key and the value of a line or an override, which `origin` names."""
    try:
        if key in NOT_IN_A_RECIPE[group]:
            raise ValueError(f"{group}.{key} may not be set: {NOT_IN_A_RECIPE[group][key]}.")
        annotations = settable_fields(group)
        check_key(group, key, annotations)
        if (group, key) == ("model", "task"):
            _check_task_name(value)
        else:
            check_value(group, key, value, annotations[key])
    except (TypeError, ValueError) as error:
        raise type(error)(f"{origin}: {error}") from error


def _check_task_name(task: Any) -> None:
    names = [_usual_name(task) for task in TASKS]
    if task is None or task in names or task in TASKS:
        return
    near = None
    if isinstance(task, str):
        near = _TASKS_ELSEWHERE.get(task.lower()) or suggestion(task, names)
    advice = f" Did you mean {near}?" if near else ""
    raise ValueError(f"model.task must be one of {', '.join(names)}, got {task!r}.{advice}")


def stored_task(task: str) -> str:
    """Return the name under which a task is stored.

    Args:
        task: A name as in a recipe.

    Returns:
        The name.

    Raises:
        ValueError: If there is no such task.
    """
    _check_task_name(task)
    return _STORED_NAMES.get(task, task)


def _usual_name(task: str) -> str:
    return _USUAL_NAMES.get(task, task)


def _build(name: str, groups: dict[str, dict[str, Any]]) -> Recipe:
    if groups["model"].get("task") is None:
        raise ValueError(f"model.task is missing: {', '.join(_usual_name(task) for task in TASKS)}.")
    _check_together(groups)
    own = {item.name for item in fields(ModelArguments)}
    model = {key: value for key, value in groups["model"].items() if key in own}
    config = {key: value for key, value in groups["model"].items() if key not in own}
    return Recipe(name, ModelArguments(**model, config=config), DataArguments(**groups["data"]), groups["training"])


def _check_together(groups: dict[str, dict[str, Any]]) -> None:
    model, data = groups["model"], groups["data"]
    _check_task(groups)
    check_stream(groups)
    check_lengths(groups)
    _check_labels(data.get("labels"), model.get("problem_type"))
    tokenizer, pretrained = data.get("tokenizer"), model.get("pretrained")
    if pretrained is None and tokenizer is None:
        raise ValueError(f"data.tokenizer is missing: {', '.join(KINDS)} to train one, or a folder or name to load one.")
    if tokenizer is not None:
        _check_tokenizer_name(tokenizer)
    if pretrained is not None and tokenizer is not None:
        raise ValueError(f"data.tokenizer may not be set: model.pretrained={pretrained} brings its tokenizer.")
    for key in ("vocab_size", "lowercase"):
        if key in data and tokenizer not in KINDS:
            raise ValueError(
                f"data.{key} means nothing for the tokenizer {tokenizer or pretrained}, which is loaded, not trained: remove it"
                f" or train one of {', '.join(KINDS)}."
            )


def _check_tokenizer_name(tokenizer: str) -> None:
    """Refuse a misspelled kind, which would be looked for on the Hub; a name with a slash and a folder are no kinds."""
    near = suggestion(tokenizer, KINDS)
    if tokenizer not in KINDS and near is not None and not Path(tokenizer).exists():
        raise ValueError(
            f"data.tokenizer must be one of {', '.join(KINDS)}, or a folder or a name on the Hub, got {tokenizer!r}. "
            f"Did you mean {near}?"
        )


def _check_task(groups: dict[str, dict[str, Any]]) -> None:
    """Refuse what has a meaning for other tasks alone."""
    task = groups["model"]["task"]
    for group, values in groups.items():
        own = settable_fields(group, [task])
        for key, value in values.items():
            tasks = ONLY_FOR.get((group, key), [other for other in TASKS if key in settable_fields(group, [other])])
            if task not in tasks:
                raise ValueError(
                    f"{group}.{key} means nothing for model.task={_usual_name(task)}, only for "
                    f"{' and '.join(_usual_name(other) for other in tasks)}."
                )
            check_value(group, key, value, own[key])
    training = groups["training"]
    if training.get("predict_with_generate") is False and not training.get("prediction_loss_only"):
        raise ValueError(
            "training.predict_with_generate=False leaves nothing to score but the loss: remove it, or set "
            "training.prediction_loss_only: true as well."
        )

    if task == "text2text-generation" and groups["data"].get("lowercase"):
        raise ValueError(
            "data.lowercase=True would have every text written in lower case, which right answers with capitals cannot equal: "
            "remove it."
        )


def _check_labels(labels: list[str] | None, problem_type: str | None) -> None:
    if labels is None:
        return
    if problem_type == "regression":
        raise ValueError("data.labels means nothing for model.problem_type=regression, where a label is a number: remove it.")
    twice = sorted({name for name in labels if labels.count(name) > 1})
    if twice or not labels:
        raise ValueError(f"data.labels={labels}: " + (f"{twice[0]!r} is given twice." if twice else "give at least one name."))
