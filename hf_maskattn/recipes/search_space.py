"""The search space of `hf-maskattn tune`: keys of a recipe, each with the values that trials choose from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_maskattn.recipes.fields import ONLY_FOR, check_key, check_value, config_fields, settable_fields, suggestion
from hf_maskattn.tasks import TASKS

SEARCHABLE: dict[str, tuple[str, ...]] = {
    "model": ("freeze_embeddings", "embeddings_learning_rate"),
    "data": (
        *("tokenizer", "vocabulary", "vocab_size", "min_frequency", "unknown_word_dropout", "lowercase", "max_length"),
        "augmentation",
    ),
    "teacher": ("temperature", "alpha", "loss"),
    "training": (
        *("learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
        *("warmup_steps", "lr_scheduler_type", "weight_decay", "max_grad_norm", "label_smoothing_factor", "class_weights"),
        *("optim", "adam_beta1", "adam_beta2", "adam_epsilon", "neftune_noise_alpha", "rdrop_alpha", "train_sampling_strategy"),
    ),
}
"""Keys that a space may have; in `model` also the fields of the configuration. With others, trials would not be comparable."""

_RANGE_KEYS = ("low", "high", "log")


@dataclass(frozen=True)
class Range:
    """A range of numbers.

    Attributes:
        low: Least value.
        high: Greatest value.
        is_log: Whether the logarithm of the value is uniform.
    """

    low: float
    high: float
    is_log: bool = False

    @property
    def is_integer(self) -> bool:
        """Whether the values are integers, as the bounds are."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return self.low <= value <= self.high and (isinstance(value, int) or not self.is_integer)


def parse_space(space: Mapping[str, Any], task: str) -> dict[str, tuple[Any, ...] | Range]:
    """Parse the space that a recipe declares.

    Args:
        space: Lists of values, and mappings with `low`, `high` and `log`, by "group.key".
        task: Stored name of the task.

    Returns:
        The values to choose from, or their range, by "group.key".

    Raises:
        ValueError: If a key does not exist or must not vary, or there is nothing to choose from.
        TypeError: If a value has another type than the key.
    """
    if not space:
        raise ValueError("tuning.space must have at least one key, got none. Remove it to search the usual ones.")
    parsed = {}
    for name, declared in space.items():
        try:
            annotation = _check_name(name, task)
            parsed[name] = _parse_range(declared) if isinstance(declared, Mapping) else _parse_choices(declared)
            group, _, key = name.partition(".")
            item = parsed[name]
            for value in (item.low, item.high) if isinstance(item, Range) else item:
                check_value(group, key, value, annotation)
        except (TypeError, ValueError) as error:
            raise type(error)(f"tuning.space: {error}") from error
    return parsed


def _check_name(name: str, task: str) -> Any:
    """Check that a key exists and may vary, and return its type."""
    group, dot, key = name.partition(".")
    if not dot or group not in SEARCHABLE:
        near = f" Did you mean training.{name}?" if name in SEARCHABLE["training"] else ""
        raise ValueError(f"a key must be of the form group.key with a group of {', '.join(SEARCHABLE)}, got {name!r}.{near}")
    annotations = settable_fields(group, [task])
    check_key(group, key, annotations)
    if task not in ONLY_FOR.get((group, key), [task]):
        raise ValueError(f"{name} has no effect with model.task={TASKS[task].recipe_name}. Remove it.")
    searchable = SEARCHABLE[group] + (tuple(config_fields(task)) if group == "model" else ())
    if key not in searchable:
        raise ValueError(
            f"{name} must not vary, because trials would not be comparable. Use one of "
            f"{', '.join(f'{group}.{other}' for other in searchable if other in annotations)}."
        )
    return annotations[key]


def _parse_choices(declared: Any) -> tuple[Any, ...]:
    is_list = isinstance(declared, list) and len(declared) > 1 and len({str(value) for value in declared}) == len(declared)
    if not is_list or any(isinstance(value, (list, dict)) for value in declared):
        raise ValueError(f"a key needs a list of different values, or a range with low and high, got {declared}.")
    return tuple(declared)


def _parse_range(declared: Mapping[str, Any]) -> Range:
    for key in declared:
        if key not in _RANGE_KEYS:
            near = suggestion(key, _RANGE_KEYS)
            raise ValueError(
                f"a range must have the keys low and high, and may have log, got {key!r}."
                + (f" Did you mean {near}?" if near else "")
            )
    low, high = _number(declared.get("low")), _number(declared.get("high"))
    is_log = declared.get("log", False)
    if not isinstance(is_log, bool):
        raise TypeError(f"log of a range must be true or false, got {is_log!r}.")
    if not low < high:  # NaN fails this comparison
        raise ValueError(f"low of a range must be less than high, got low={low} and high={high}.")
    if is_log and low <= 0:
        raise ValueError(f"low of a range with log=true must be greater than 0, got {low}.")
    return Range(low, high, is_log)


def _number(bound: Any) -> float:
    if isinstance(bound, bool) or not isinstance(bound, (int, float)):
        raise TypeError(f"low and high of a range must be numbers, got {bound!r}.")
    return bound


def default_space(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the space of a recipe that declares none: learning rate, batch size and dropout around its own values.

    The groups of the recipe have all defaults. The space is as a recipe declares it.
    """
    training, model = groups["training"], groups["model"]
    rate, batch_size = training.get("learning_rate", 5e-5), training.get("per_device_train_batch_size", 8)
    space: dict[str, Any] = {
        "training.learning_rate": {"low": rate / 4, "high": rate * 4, "log": True},
        "training.per_device_train_batch_size": sorted({max(1, batch_size // 2), batch_size, batch_size * 2}),
    }
    for key in ("embedding_dropout_prob", "hidden_dropout_prob", "classifier_dropout"):
        if isinstance(model.get(key), (int, float)):
            space[f"model.{key}"] = {"low": 0.0, "high": max(0.6, float(model[key]))}
    return space
