"""Writes a recipe for a file of one's own data: columns found in the file, the usual settings, a comment for each key."""

import math
import re
import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset, Features, List, Value

from hf_maskattn.data.columns import item_feature, value_kind
from hf_maskattn.data.file_loading import load_file
from hf_maskattn.data.files import separator_hint
from hf_maskattn.recipes.arguments import FROM_SCRATCH, default_epochs
from hf_maskattn.recipes.recipe import check_field, load_recipe, parse_override, stored_task

_SAMPLE_ROWS = 1000
_LISTED_LABELS = 8
_VALIDATION_FRACTION = 0.1

_NAMES = {
    "text_column": ("text", "sentence", "review", "content", "document", "comment", "utterance", "question", "query", "title"),
    "label_column": ("label", "labels", "class", "category", "target", "intent", "sentiment", "topic", "language", "score"),
    "tokens_column": ("tokens", "words"),
    "tags_column": ("tags", "ner_tags", "labels", "pos_tags", "slots"),
    "source_column": ("source", "src", "input", "word", "text", "document", "article"),
    "target_column": ("target", "tgt", "output", "pronunciation", "summary", "translation", "label"),
}
"""Usual names of columns, the likeliest first."""


@dataclass(frozen=True)
class _Line:
    """A key of a group, with its comment; `value=None` writes it as a comment that can be filled in."""

    key: str
    value: Any
    comment: str = ""


def write_starter_recipe(task: str, file: str, target: str | Path, overrides: Iterable[str] = ()) -> None:
    """Write a commented recipe that trains on a file.

    Args:
        task: "text-classification", "token-classification", "joint-classification", "fill-mask" or "seq2seq".
        file: CSV, TSV, JSON Lines or Parquet file, or a pattern.
        target: The YAML file to write.
        overrides: Keys to set, as "group.key=value"; columns that are named so are not searched for.

    Raises:
        FileExistsError: If `target` exists.
        FileNotFoundError: If there is no such file, or no folder of `target`.
        ValueError: If there is no such task, a column is not found in the file, or the recipe would not be valid.
    """
    target = Path(target)
    if target.exists():
        raise FileExistsError(f"{target} exists. Remove it, or name another file: --output FILE.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"The folder {target.parent} does not exist. Create it, or name another file: --output FILE.")
    set_keys = [parse_override(override) for override in overrides]
    for group, key, value in set_keys:  # before anything is written: a value may be a token, in the wrong place
        check_field(group, key, value, f"override {f'{group}.{key}'!r}")
    chosen = {key: value for group, key, value in set_keys if group == "data"}
    rows = load_file(file, split="train", separator=chosen.get("csv_separator"))
    fraction = [] if chosen.get("validation_file") else [_VALIDATION_FRACTION]
    groups = {
        "model": [_Line("task", task)],
        "data": [
            _Line("train_file", file),
            _Line("validation_file", None, "FILE with the same columns, instead of:"),
            *(_Line("validation_fraction", value, "of the rows of train_file find the best checkpoint") for value in fraction),
            _Line("test_file", None, "FILE with the same columns, scored at the end"),
        ],
        "training": [
            _Line("num_train_epochs", _epochs(len(rows)), "10, or more until 500 steps"),
            *(_Line(key, FROM_SCRATCH[key]) for key in ("per_device_train_batch_size", "learning_rate")),
            _Line("warmup_ratio", FROM_SCRATCH["warmup_steps"], "of the steps raise the learning rate from 0"),
            _Line("weight_decay", FROM_SCRATCH["weight_decay"]),
            _Line("seed", 0),
        ],
    }
    for group, line in _columns(stored_task(task), rows, chosen, file):
        groups[group].append(line)
    for group, key, value in set_keys:
        others = [line for line in groups.get(group, []) if line.key != key]
        groups[group] = [*others, _Line(key, value)]
    origin = " ".join(f"Made from {file}: {len(rows):,} rows with the columns {', '.join(rows.column_names)}.".split())
    header = [
        f"# hf-maskattn train {shlex.quote(str(target))}",
        f"# {origin}",  # in one line, whatever the names are
        "# Every key, its default and its meaning: docs/recipes.md. Paths are relative to the directory of the command.",
    ]
    text = "\n".join([*header, *(line for group, lines in groups.items() for line in _render(group, lines)), ""])
    target.write_text(text, encoding="utf-8")
    try:
        load_recipe(target)
    except (TypeError, ValueError):
        target.unlink()
        raise


def _epochs(num_rows: int) -> int:
    train_rows = num_rows - int(num_rows * _VALIDATION_FRACTION)
    return default_epochs(math.ceil(train_rows / FROM_SCRATCH["per_device_train_batch_size"]))


def _columns(task: str, rows: Dataset, chosen: dict[str, Any], file: str) -> Iterable[tuple[str, _Line]]:
    """Yield the lines, with their groups, that depend on the columns of a file."""
    find = _ColumnFinder(rows, chosen, file, task)
    if task == "text2text-generation":
        source = find("source_column", find.text_columns())
        target = find("target_column", find.text_columns(), taken=(source,))
        yield "data", _Line("source_column", source, "what the model reads")
        yield "data", _Line("target_column", target, "what the model writes")
        yield "data", _Line("tokenizer", "bpe", "char, word, symbols, bpe, wordpiece, or the name of a tokenizer")
        return
    if task in ("token-classification", "joint-classification"):
        tags_key = "label_column" if task == "token-classification" else "tags_column"
        tokens = find("tokens_column", find.list_columns())
        tags = find(tags_key, find.list_columns(), taken=(tokens,), names=_NAMES["tags_column"])
        yield "data", _Line("tokens_column", tokens, "list of words")
        yield "data", _Line(tags_key, tags, "list of tags, one for each word")
        if task == "joint-classification":
            name = find("label_column", find.label_columns(), taken=find.list_columns())
            yield "data", _Line("label_column", name, _list_labels(rows, name))
        yield "data", _Line("tokenizer", "word", "char, word, bpe, wordpiece, or the name of a tokenizer")
        return
    is_labeled = task == "text-classification"
    label = find.by_name("label_column", find.label_columns()) if is_labeled else None
    text = find("text_column", find.text_columns(), taken=(label,))
    if is_labeled:
        label = find("label_column", find.label_columns(), taken=(text,))
        if isinstance(rows.features[label], List):
            yield "model", _Line("problem_type", "multi_label_classification", "any number of labels for a text")
        elif _is_number(rows.features[label]) or _are_decimals(rows[:_SAMPLE_ROWS][label]):
            yield "model", _Line("problem_type", "regression", "a number for a text")
    yield "data", _Line("text_column", text)
    if label is not None:
        yield "data", _Line("label_column", label, _list_labels(rows, label))
    tokenizer = "word" if task == "text-classification" else "bpe"
    yield "data", _Line("tokenizer", tokenizer, "char, word, bpe, wordpiece, or the name of a tokenizer")
    yield "data", _Line("lowercase", True, "whether the tokenizer ignores case")


class _ColumnFinder:
    """Finds the columns of a file that a task needs."""

    def __init__(self, rows: Dataset, chosen: dict[str, Any], file: str, task: str):
        self.features: Features = rows.features
        self.sample = rows[:_SAMPLE_ROWS]
        self.chosen, self.file, self.task = chosen, file, task

    def __call__(
        self, key: str, candidates: Sequence[str], taken: Collection[str | None] = (), names: Sequence[str] | None = None
    ) -> str:
        candidates = [name for name in candidates if name not in taken]
        named = self.by_name(key, candidates, names)
        if named is not None:
            return named
        if candidates:
            return candidates[0]
        advice = separator_hint([*self.features]) or f"Name one of them: data.{key}=NAME."
        raise ValueError(
            f"{self.file} must have a column for data.{key} of {self.task}, got the columns {', '.join(self.features)}. "
            f"{advice}"
        )

    def by_name(self, key: str, candidates: Sequence[str], names: Sequence[str] | None = None) -> str | None:
        """Find the column that was chosen for a key, or that has a usual name."""
        chosen = self.chosen.get(key)
        if chosen is not None and chosen not in self.features:
            raise ValueError(
                f"data.{key} must be a column of {self.file}, got {chosen!r}. Its columns are {', '.join(self.features)}."
            )
        if chosen is not None:
            return chosen
        by_name = {name.lower(): name for name in reversed(candidates)}
        return next((by_name[name] for name in names or _NAMES[key] if name in by_name), None)

    def text_columns(self) -> list[str]:
        """List the columns of texts, the longest texts first."""
        columns = [
            name for name, feature in self.features.items() if getattr(feature, "dtype", "") in ("string", "large_string")
        ]
        if self.task == "text2text-generation":
            return columns  # in the order of the file
        return sorted(columns, key=lambda name: -sum(len(value or "") for value in self.sample[name]))

    def list_columns(self) -> list[str]:
        """List the columns of lists."""
        return [name for name, feature in self.features.items() if isinstance(feature, List)]

    def label_columns(self) -> list[str]:
        """List the columns of possible labels, the fewest different values first, and those with a single value last."""
        kinds = {name: value_kind(item_feature(feature) or feature) for name, feature in self.features.items()}
        names = [name for name, kind in kinds.items() if kind is not None or _is_number(self.features[name])]
        numbers = {name: len({str(value) for value in self.sample[name]}) for name in names}
        return sorted(numbers, key=lambda name: (numbers[name] == 1, numbers[name]))


def _are_decimals(values: Sequence[Any]) -> bool:
    """Whether the cells of a CSV column are numbers with a decimal point."""
    return all(isinstance(value, str) and re.fullmatch(r"\s*[-+]?\d*\.\d+\s*", value) for value in values)


def _is_number(feature: Any) -> bool:
    return isinstance(feature, Value) and feature.dtype.startswith("float")


def _list_labels(rows: Dataset, label: str) -> str:
    if isinstance(rows.features[label], List):
        return ""
    labels = sorted({str(value) for value in rows[label]})
    if len(labels) > _LISTED_LABELS:
        return f"{len(labels):,} different values: {', '.join(islice(labels, _LISTED_LABELS))}, ..."
    return ", ".join(labels)


def _render(group: str, lines: Sequence[_Line]) -> Iterable[str]:
    yield f"{group}:"
    for line in lines:
        comment = " ".join(line.comment.split())
        if line.value is None:
            yield f"  # {line.key}: {comment}"
        else:
            value = yaml.safe_dump(line.value, default_flow_style=True, allow_unicode=True, width=10_000).removesuffix("...\n")
            yield f"  {line.key}: {value.strip()}" + (f"  # {comment}" if comment else "")
