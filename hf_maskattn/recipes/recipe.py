"""Loads recipes: YAML files with the groups `model`, `data`, `training` and others, and overrides of the command line."""

import glob
import math
import re
import warnings
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from hf_maskattn.data.files import expand_pattern, names_vector_file
from hf_maskattn.data.tokenizers import KEEP_EVERY_CHARACTER, KINDS
from hf_maskattn.recipes.arguments import (
    NOT_IN_A_RECIPE,
    ONLY_FOR_DISTILLATION,
    ONLY_FOR_STREAMS,
    DataArguments,
    ModelArguments,
    TeacherArguments,
    TuningArguments,
)
from hf_maskattn.recipes.embedding_rules import check_embeddings
from hf_maskattn.recipes.fields import (
    EXCLUSIVE_KEYS,
    ONLY_FOR,
    accepts_null,
    check_dataset_name,
    check_key,
    check_value,
    replace_warmup_ratio,
    settable_fields,
    suggestion,
)
from hf_maskattn.recipes.search_space import parse_space
from hf_maskattn.recipes.shipped_recipes import explain_missing_recipe, shipped_recipes
from hf_maskattn.recipes.stream_rules import check_stream
from hf_maskattn.recipes.teacher_rules import check_teacher
from hf_maskattn.tasks import RECIPE_NAMES, TASKS

GROUPS = ("model", "data", "teacher", "training", "tuning")

_WORD_MIN_FREQUENCY = 2
_WORD_UNKNOWN_DROPOUT = 0.25
"""Defaults for a `word` tokenizer, which trains its unknown token on rare words only."""


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
    """Parse YAML of a file or an option to a mapping, list, string, number, bool or None.

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


@dataclass(frozen=True)
class Recipe:
    """A validated recipe.

    Attributes:
        name: Name of its file without the suffix.
        model: The model to train.
        data: The dataset, its columns and the tokenizer.
        training: The fields of `TrainingArguments` that the recipe sets.
        teacher: The model to distill, None for none.
        tuning: The search of `hf-maskattn tune`. It has no effect on training.
    """

    name: str
    model: ModelArguments
    data: DataArguments
    training: dict[str, Any]
    teacher: TeacherArguments | None = None
    tuning: TuningArguments = field(default_factory=TuningArguments)

    @property
    def label_column(self) -> str:
        """The column with the labels."""
        return self.data.label_column or TASKS[self.model.task].label_column or "label"

    @property
    def min_frequency(self) -> int:
        """How often a word must occur in the train split to be in the vocabulary of a tokenizer that is trained."""
        if self.data.min_frequency is not None:
            return self.data.min_frequency
        # A target with an unknown token could never be generated.
        is_input_only = not TASKS[self.model.task].generates
        return _WORD_MIN_FREQUENCY if is_input_only and self.data.tokenizer == "word" else 1

    @property
    def unknown_word_dropout(self) -> float:
        """Alpha of unknown-word dropout. 0 for none."""
        if self.data.unknown_word_dropout is not None:
            return self.data.unknown_word_dropout
        is_supported = self.model.task in ONLY_FOR["data", "unknown_word_dropout"]
        return _WORD_UNKNOWN_DROPOUT if is_supported and self.data.tokenizer == "word" else 0.0

    def has_split(self, split: str) -> bool:
        """Return whether the recipe has a "train", "validation" or "test" split."""
        data = self.data
        if split == "validation" and data.validation_fraction is not None:
            return True
        return getattr(data, f"{split}_file" if data.source is None else f"{split}_split") is not None


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Load and validate a recipe.

    Args:
        path: The YAML file, or the name of a shipped recipe, such as "language_identification".
        overrides: Changes of the form "group.key=value" with a value in YAML. Later ones win. Null for a key
            that must not be null removes it, so that its default holds.

    Returns:
        The recipe.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not valid YAML, or a key does not exist, must not be set, is missing, or contradicts
            another one. The message has the file or the override, the key, and a way out.
        TypeError: If a value has the wrong type, likewise.
    """
    path = Path(path)
    if not path.is_file():
        path = shipped_recipes().get(str(path), path)
    groups = _read_groups(path)
    origins = {(group, key): str(path) for group, values in groups.items() for key in values}
    for override in overrides:
        group, key, value = parse_override(override)
        is_empty = override.endswith("=")  # perhaps a shell variable that is not set, which must not remove a key
        if value is None and not is_empty and not accepts_null(group, key):
            groups[group].pop(key, None)
            origins.pop((group, key), None)
            continue
        groups[group][key] = value
        if group == "training" and (other := EXCLUSIVE_KEYS.get(key)) in groups[group]:
            del groups[group][other], origins[group, other]
        origins[group, key] = f"override {f'{group}.{key}'!r}"
    for (group, key), origin in origins.items():
        if (group, key) != ("teacher", "model") or groups[group][key] is not None:
            check_field(group, key, groups[group][key], origin)
    if groups["teacher"].get("model", "") is None:
        groups["teacher"] = {}
    task = groups["model"].get("task")
    if task is None:
        raise ValueError(f"model.task is missing. Set it to one of {', '.join(RECIPE_NAMES)}.")
    groups["model"]["task"] = RECIPE_NAMES.get(task, task)
    _check_groups(groups)
    replace_warmup_ratio(groups["training"])
    own = {item.name for item in fields(ModelArguments)}
    model = {key: value for key, value in groups["model"].items() if key in own}
    config = {key: value for key, value in groups["model"].items() if key not in own}
    teacher = TeacherArguments(**groups["teacher"]) if groups["teacher"] else None
    return Recipe(
        path.stem,
        ModelArguments(**model, config=config),
        DataArguments(**groups["data"]),
        groups["training"],
        teacher,
        TuningArguments(**groups["tuning"]),
    )


def read_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Deprecated name of `load_recipe`."""
    warnings.warn("read_recipe is deprecated. Use load_recipe.", FutureWarning, stacklevel=2)
    return load_recipe(path, overrides)


def check_local_files(recipe: Recipe, splits: Collection[str] = ("train", "validation", "test")) -> None:
    """Check that the files of the splits of a recipe exist. Their content is checked when they are loaded.

    Raises:
        FileNotFoundError: If a file does not exist, or no file matches a pattern.
    """
    unlabeled = ("unlabeled",) if "train" in splits else ()
    for key in (f"{split}_file" for split in (*splits, *unlabeled)):
        name = getattr(recipe.data, key)
        if name is None or Path(name).exists() or expand_pattern(name):
            continue
        problem = "No file matches this pattern" if glob.has_magic(name) else "There is no such file"
        raise FileNotFoundError(
            f"data.{key} must be an existing file or pattern, got {name!r}. {problem}, relative to {Path.cwd()}. Correct the "
            "path, or run the command in another directory."
        )


def _read_groups(path: Path) -> dict[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise FileNotFoundError(explain_missing_recipe(path)) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text, got an invalid byte at {error.start}.") from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise TypeError(f"{path} must have the groups {', '.join(f'`{group}:`' for group in GROUPS)}, got none.")
    for group, values in content.items():
        if group not in GROUPS:
            raise ValueError(f"{path}: the group must be one of {', '.join(GROUPS)}, got {group!r}.")
        if values is not None and not isinstance(values, dict):
            # The value may be a token, in the wrong place.
            raise TypeError(f"{path}: `{group}:` must have lines of the form `key: value`, got a {type(values).__name__}.")
    return {group: dict(content.get(group) or {}) for group in GROUPS}


def parse_override(override: str) -> tuple[str, str, Any]:
    """Parse an override "group.key=value", with the value in YAML, to group, key and value.

    Raises:
        ValueError: If it has another form. The message does not have the value.
    """
    name, equals, text = override.partition("=")
    # The value may be a token, so that it is not shown.
    origin = f"override {name!r}" if equals else "an override without `=`"
    group, dot, key = name.partition(".")
    if not (equals and dot and key) or group not in GROUPS:
        raise ValueError(f"{origin} is not of the form group.key=value. The groups are {', '.join(GROUPS)}.")
    return group, key, parse_yaml(text, origin)


def check_field(group: str, key: str, value: Any, origin: str) -> None:
    """Check the key and the value of a line or of an override. Messages begin with `origin`.

    Raises:
        ValueError: If there is no such key, or it must not be set; does not repeat the value.
        TypeError: If the value has another type.
    """
    try:
        if key in NOT_IN_A_RECIPE[group]:
            raise ValueError(f"{group}.{key} must not be set: {NOT_IN_A_RECIPE[group][key]}.")
        annotations = settable_fields(group)
        check_key(group, key, annotations)
        if (group, key) == ("model", "task"):
            _check_task_name(value)
        else:
            check_value(group, key, value, annotations[key])
    except (TypeError, ValueError) as error:
        raise type(error)(f"{origin}: {error}") from error


def stored_task(name: str) -> str:
    """Return the name under which recipes store a task that has this name, or this name in recipes.

    Raises:
        ValueError: If there is no such task.
    """
    _check_task_name(name)
    return RECIPE_NAMES.get(name, name)


def _check_task_name(task: Any) -> None:
    if task is None:
        return
    near = None
    if isinstance(task, str):
        if task in TASKS or task in RECIPE_NAMES:
            return
        others = [known.recipe_name for known in TASKS.values() if task.lower() in known.other_names]
        near = others[0] if others else suggestion(task, RECIPE_NAMES)
    advice = f" Did you mean {near}?" if near else ""
    raise ValueError(f"model.task must be one of {', '.join(RECIPE_NAMES)}, got {task!r}.{advice}")


def _check_groups(groups: dict[str, dict[str, Any]]) -> None:
    """Check the fields of a recipe against each other."""
    _check_task(groups)
    if groups["data"].get("streaming"):
        check_stream(groups["data"], groups["training"])
    else:
        for key in ONLY_FOR_STREAMS:
            if key in groups["data"]:
                raise ValueError(f"data.{key} has no effect without data.streaming. Remove it, or set data.streaming=true.")
    for (group, key), least in _MINIMUMS.items():
        value = groups[group].get(key)
        if value is not None and not least <= value < math.inf:  # NaN fails this comparison
            raise ValueError(f"{group}.{key} must be at least {least}, got {value}.")
    check_dataset_name(groups["data"].get("name"))
    _check_labels(groups["data"].get("labels"), groups["model"].get("problem_type"))
    _check_tokenizer(groups["data"], groups["model"].get("pretrained"), groups["model"].get("embeddings"))
    if "vocabulary" in groups["data"] or any("embeddings" in key for key in groups["model"]):
        check_embeddings(groups["model"], groups["data"])
    if groups["teacher"] or any(key in groups["data"] for key in ONLY_FOR_DISTILLATION):
        check_teacher(groups)
    if groups["tuning"].get("space") is not None:
        parse_space(groups["tuning"]["space"], groups["model"]["task"])


def _check_task(groups: dict[str, dict[str, Any]]) -> None:
    """Check that the task of the recipe supports its keys."""
    task = TASKS[groups["model"]["task"]]
    for group, values in groups.items():
        supported = settable_fields(group, [task.name])
        for key, value in values.items():
            tasks = ONLY_FOR.get((group, key), [other for other in TASKS if key in settable_fields(group, [other])])
            if task.name not in tasks:
                raise ValueError(
                    f"{group}.{key} has no effect with model.task={task.recipe_name}, only with "
                    f"{' and '.join(TASKS[other].recipe_name for other in tasks)}. Remove it."
                )
            check_value(group, key, value, supported[key])
    training = groups["training"]
    if training.get("predict_with_generate") is False and not training.get("prediction_loss_only"):
        raise ValueError(
            "training.predict_with_generate=false leaves only the loss to report. Remove it, or also set "
            "training.prediction_loss_only=true."
        )
    if task.generates and groups["data"].get("lowercase"):
        raise ValueError(
            "data.lowercase=true is not supported with text-to-text generation, because generated text would never equal a "
            "reference with capital letters. Remove it."
        )


_MINIMUMS = {
    ("data", "min_frequency"): 1,
    ("data", "unknown_word_dropout"): 0,
    ("data", "max_length"): 1,
    ("data", "max_target_length"): 1,
    ("data", "shuffle_buffer"): 0,
    ("data", "sample_rows"): 1,
    ("data", "augmentation"): 0,
    ("teacher", "batch_size"): 1,
    ("teacher", "max_length"): 1,
    ("tuning", "trials"): 1,
    # The token that the decoder starts from counts.
    ("training", "generation_max_length"): 2,
    ("training", "generation_num_beams"): 1,
}


def _check_labels(labels: list[str] | None, problem_type: str | None) -> None:
    if labels is None:
        return
    if problem_type == "regression":
        raise ValueError("data.labels has no effect with model.problem_type=regression. Remove it.")
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(f"data.labels must be a list of different names, got {labels}.")


def _check_tokenizer(data: dict[str, Any], pretrained: str | None, embeddings: str | None) -> None:
    tokenizer, kinds = data.get("tokenizer"), ", ".join(KINDS)
    if embeddings is not None and not names_vector_file(embeddings):
        pretrained = pretrained or embeddings
        if tokenizer in KINDS:
            raise ValueError(
                f"data.tokenizer must be the tokenizer of model.embeddings={embeddings}, got {tokenizer!r}. Remove it, or set "
                "model.embeddings to a file of word vectors."
            )
    elif pretrained is not None and tokenizer is not None:
        raise ValueError(f"data.tokenizer must not be set with model.pretrained={pretrained}, whose tokenizer is used.")
    if pretrained is None and tokenizer is None:
        raise ValueError(f"data.tokenizer is missing. Set it to one of {kinds} to train one, or to a folder or Hub name.")
    if tokenizer is not None and tokenizer not in KINDS and not Path(tokenizer).exists():
        near = suggestion(tokenizer, KINDS)  # a misspelled kind would be looked up on the Hub
        if near is not None:
            raise ValueError(
                f"data.tokenizer must be one of {kinds}, or a folder or a name on the Hub, got {tokenizer!r}. Did you mean "
                f"{near}?"
            )
    for key in ("vocab_size", "min_frequency", "lowercase"):
        if data.get(key) not in (None, False) and tokenizer not in KINDS:  # lowercase=false is the default
            raise ValueError(
                f"data.{key} has no effect with the tokenizer {tokenizer or pretrained}, which is loaded. Remove it, or train "
                f"a tokenizer with data.tokenizer set to one of {kinds}."
            )
    if tokenizer in KEEP_EVERY_CHARACTER and (data.get("min_frequency") or 1) > 1:
        raise ValueError(
            f"data.min_frequency must be 1 with data.tokenizer={tokenizer}, which keeps every character, got "
            f"{data['min_frequency']}. Remove it."
        )
