"""Generates docs/recipes.md from the dataclasses of recipes, their docstrings, and the configurations of the models.

To update the page: python -m tests.recipes_reference
"""

import ast
import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import transformers
from transformers import Seq2SeqTrainingArguments

from hf_maskattn.recipes import arguments
from hf_maskattn.recipes.arguments import (
    NOT_IN_A_RECIPE,
    ONLY_FOR_DISTILLATION,
    ONLY_FOR_STREAMS,
    DataArguments,
    ModelArguments,
    OwnTrainingArguments,
    TeacherArguments,
    TuningArguments,
)
from hf_maskattn.recipes.fields import ONLY_FOR, WARMUP_RATIO, class_definition, config_fields, describe_type, settable_fields
from hf_maskattn.recipes.training_rules import FIXED
from hf_maskattn.tasks import TASKS

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"

OWN_DEFAULTS = {
    "num_train_epochs": "`10`, or more until 500 steps; `3` with `pretrained`",
    "per_device_train_batch_size": "`32`; `8` with `pretrained`",
    "learning_rate": "`0.002`; `5e-05` with `pretrained`",
    "warmup_steps": "`0.1`; `0` with `pretrained`",
    "weight_decay": "`0.01`; `0.0` with `pretrained`",
    "output_dir": "`runs/NAME`, with the name of the recipe",
    "eval_strategy": "`epoch`, or `steps` for a stream, or `no` without a validation split",
    "eval_steps": "`500` for a stream",
    "save_strategy": "as `eval_strategy`",
    "save_steps": "as `eval_steps`",
    "save_total_limit": "`2`",
    "logging_strategy": "`epoch`, or `steps` for a stream",
    "load_best_model_at_end": "`true` if the run evaluates and saves",
    "metric_for_best_model": "the first metric of the task",
    "greater_is_better": "by metric",
    "train_sampling_strategy": "`group_by_length`, or `random` for a stream",
    "predict_with_generate": "`true`",
    "ddp_find_unused_parameters": "`false`",
    "dataloader_pin_memory": "`true` with an accelerator",
    "disable_tqdm": "`true` without a terminal",
}
"""Defaults of the group `training` that differ from those of transformers. See `resolved_training`."""

OWN_MEANINGS = {
    "warmup_steps": "Number of steps in which the learning rate rises from 0, or below 1 their fraction of all steps.",
    "hub_strategy": "What to publish and when: `end` or `every_save`. The others upload pickles and raise an error.",
    "predict_with_generate": "Whether to evaluate generated texts.",
    "train_sampling_strategy": "Order of the training rows: `random`, `sequential` or `group_by_length`.",
}
"""Meanings of keys of the group `training` that differ from those of transformers."""

_TRAINING_ARGUMENTS = "https://huggingface.co/docs/transformers/main_classes/trainer#transformers.TrainingArguments"

_HEAD = """# Recipes

A recipe is a YAML file with the groups `model`, `data` and `training`, `teacher` to distill a larger model, and
`tuning` for a search.
`hf-maskattn train RECIPE [GROUP.KEY=VALUE]...` trains it. Overrides have the form `group.key=value` with a value in YAML, and
an empty value is null. `data.vocab_size=null` removes a key that must not be null, so that its default holds. An unknown key, a
wrong type, or a key that has no effect is an error. A run saves its recipe with all defaults as `recipe.yaml`.

```yaml
model:
  task: text-classification
  hidden_size: 128
data:
  train_file: train.csv
  validation_fraction: 0.1
  tokenizer: bpe
training:
  seed: 0
```

Without `model.pretrained` the defaults of the group `training` are those of models from scratch: 10 epochs, or more until 500
steps; with it they are those of Trainer.

This page is generated from the source: `python -m tests.recipes_reference`.
"""


def page() -> str:
    """Return the content of docs/recipes.md."""
    by_config: dict[Any, list[str]] = {}
    for task in TASKS.values():
        by_config.setdefault(task.config_class, []).append(task.recipe_name)
    config_parts = []
    for path, names in by_config.items():
        config_parts += [f"Fields of `{path.name}` ({', '.join(names)}):\n", _table(_config_rows(names[0]))]
    parts = [
        _HEAD,
        "## `model`\n",
        _table(_rows("model", ModelArguments, skipped=("config",))),
        *config_parts,
        _fixed("model", NOT_IN_A_RECIPE["model"]),
        "## `data`\n",
        _table(_rows("data", DataArguments)),
        "## `teacher`\n",
        "The fine-tuned model that the model is distilled from. See [distillation.md](distillation.md).\n",
        _table(_rows("teacher", TeacherArguments)),
        "## `training`\n",
        _table(_rows("training", OwnTrainingArguments)),
        f"The other keys are fields of [`TrainingArguments`]({_TRAINING_ARGUMENTS}), for seq2seq also of "
        f"`Seq2SeqTrainingArguments`, with the meanings of transformers {transformers.__version__}. "
        "[training_arguments.md](training_arguments.md) lists values that work and the errors of others.\n",
        _table(_training_rows()),
        _fixed("training", {**NOT_IN_A_RECIPE["training"], **FIXED}),
        "## `tuning`\n",
        "The search of `hf-maskattn tune`. See [tuning.md](tuning.md). Training ignores this group.\n",
        _table(_rows("tuning", TuningArguments)),
    ]
    return "\n".join(part for part in parts if part)


def is_current(text: str) -> bool:
    """Return whether the page is up to date. The meanings of the group `training` depend on the version of transformers."""
    if f"transformers {transformers.__version__}" in text:
        return text == page()
    return text.partition("## `training`")[0] == page().partition("## `training`")[0]


def _table(rows: list[tuple[str, ...]]) -> str:
    lines = ["| Key | Type | Default | Meaning |", "|---|---|---|---|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _fixed(group: str, reasons: dict[str, str]) -> str:
    lines = [f"Keys that cannot be set in `{group}`:\n", "| Key | Reason |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{key}` | {_cell(_sentence(reason))} |" for key, reason in reasons.items())]) + "\n"


def _rows(group: str, dataclass_type: type, skipped: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    meanings = attribute_docstrings(dataclass_type)
    rows = []
    for item in dataclasses.fields(dataclass_type):
        if item.name not in skipped:
            meaning = meanings[item.name] + _tasks_of(group, item.name)
            if item.name in ONLY_FOR_STREAMS:
                meaning += " Needs `streaming`."
            if item.name in ONLY_FOR_DISTILLATION:
                meaning += " Needs `teacher.model`."
            rows.append((f"`{item.name}`", _type(item.type), _default(item.default), _cell(meaning)))
    return rows


def attribute_docstrings(dataclass_type: type) -> dict[str, str]:
    """Return the string literal after each field of a dataclass, in one line."""
    docstrings, name = {}, None
    for node in class_definition(arguments.__name__, dataclass_type.__name__).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings[name] = " ".join(str(node.value.value).split())
    return docstrings


def _tasks_of(group: str, key: str) -> str:
    tasks = ONLY_FOR.get((group, key))
    return "" if tasks is None else f" ({', '.join(TASKS[task].recipe_name for task in tasks)})"


def _config_rows(recipe_name: str) -> list[tuple[str, ...]]:
    task = next(task.name for task in TASKS.values() if task.recipe_name == recipe_name)
    config_class = TASKS[task].config_class.load()
    defaults, meanings = config_class(), _docstring_arguments(config_class)
    names = [name for name in config_fields(task) if name in settable_fields("model", [task])]
    annotations = config_fields(task)
    return [
        (f"`{name}`", _type(annotations[name]), _default(getattr(defaults, name)), _cell(_sentence(meanings[name])))
        for name in names
    ]


def _docstring_arguments(documented: type) -> dict[str, str]:
    """Return the text of each argument in a docstring of transformers' style, in one line."""
    section = re.search(r"^Args:\n(.*?)(?:^\S|\Z)", inspect.getdoc(documented) or "", re.S | re.M)
    entries = re.findall(r"^    (\w+) \([^\n]*\):\n(.*?)(?=^    \w+ \(|\Z)", section[1] if section else "", re.S | re.M)
    return {name: re.sub(r"\[(`\w+`)\]", r"\1", " ".join(text.split())) for name, text in entries}


def _training_rows() -> list[tuple[str, ...]]:
    settable = settable_fields("training")
    rows = []
    for item in dataclasses.fields(Seq2SeqTrainingArguments):
        if item.name in settable and item.name not in FIXED:
            default = OWN_DEFAULTS.get(item.name) or _default(item.default)
            meaning = OWN_MEANINGS.get(item.name) or str(item.metadata["help"]).replace("%%", "%")
            rows.append((f"`{item.name}`", _type(item.type), default, _cell(_first_sentence(meaning))))
        if item.name == "warmup_steps":
            rows.append((f"`{WARMUP_RATIO}`", "a number", "not set", "`warmup_steps` as a fraction of all steps."))
    return rows


def _first_sentence(text: str) -> str:
    return _sentence(re.split(r"(?<=[^.][.])\s+(?=[A-Z])", " ".join(text.split()))[0])


def _sentence(text: str) -> str:
    text = text if "_" in text.split()[0] else text[:1].upper() + text[1:]
    return text.rstrip(".") + "."


def _type(annotation: Any) -> str:
    return _cell(describe_type(annotation).replace("'", "`"))


def _default(value: Any) -> str:
    if value is dataclasses.MISSING:
        return "required"
    words = {None: "null", True: "true", False: "false", "": '""'}
    return f"`{words.get(value, value) if isinstance(value, (str, bool, type(None))) else value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
