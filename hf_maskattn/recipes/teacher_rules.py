"""Checks of the group `teacher` of a recipe, and of the keys of `data` that need it."""

import math
from dataclasses import asdict
from typing import Any, Literal

from hf_maskattn.recipes.arguments import ONLY_FOR_DISTILLATION, TeacherArguments
from hf_maskattn.tasks import TASKS

_NOT_FOR_GENERATION = ("temperature", "alpha", "loss", "labels")
"""Keys of `teacher` without effect where the texts that the teacher generates replace the targets."""


def check_teacher(groups: dict[str, dict[str, Any]]) -> None:
    """Check the group `teacher` against the other groups, whose fields have valid types and the stored name of the task.

    Raises:
        ValueError: If the teacher is missing, or a field has no effect or is out of range.
    """
    data, teacher = groups["data"], groups["teacher"]
    if teacher.get("model") is None:
        _check_no_teacher(data, teacher)
        return
    task = TASKS[groups["model"]["task"]]
    if task.name in ("fill-mask", "joint-classification"):
        raise ValueError(f"teacher.model is not supported with model.task={task.name}. Remove the group `teacher`.")
    if data.get("streaming"):
        raise ValueError(
            "teacher.model is not supported with data.streaming=true, because the teacher reads all rows before training. "
            "Remove one of them."
        )
    if "unlabeled_split" in data and data.get("unlabeled_source") is None:
        raise ValueError("data.unlabeled_split has no effect without data.unlabeled_source. Remove it.")
    if data.get("unlabeled_file") is not None and data.get("unlabeled_source") is not None:
        raise ValueError("data.unlabeled_file and data.unlabeled_source are mutually exclusive. Remove one of them.")
    for key in _NOT_FOR_GENERATION if task.generates else ():
        if key in teacher:
            raise ValueError(
                f"teacher.{key} has no effect with text-to-text generation, where the texts that the teacher generates replace "
                "the targets. Remove it."
            )
    _check_loss(teacher, groups["model"].get("problem_type"))


def _check_no_teacher(data: dict[str, Any], teacher: dict[str, Any]) -> None:
    if teacher:
        raise ValueError("teacher.model is missing. Set it to a fine-tuned model, as a folder or a name on the Hub.")
    for key in ONLY_FOR_DISTILLATION:
        if data.get(key):  # null and 0 are the defaults
            raise ValueError(
                f"data.{key} has no effect without a teacher that labels the texts. Set teacher.model, or remove it."
            )


def _check_loss(teacher: dict[str, Any], problem_type: str | None) -> None:
    temperature, alpha, loss = teacher.get("temperature", 1), teacher.get("alpha", 1), teacher.get("loss")
    if not 0 < temperature < math.inf:
        raise ValueError(f"teacher.temperature must be greater than 0, got {temperature}.")
    if not 0 < alpha <= 1:
        raise ValueError(f"teacher.alpha must be in (0, 1], got {alpha}. Remove the group `teacher` to train on labels alone.")
    if problem_type == "regression" and loss == "kl":
        raise ValueError(
            "teacher.loss=kl is not supported with model.problem_type=regression, whose outputs are not probabilities. Use "
            "teacher.loss=mse."
        )
    if "temperature" in teacher and (loss == "mse" or problem_type == "regression"):
        raise ValueError(f"teacher.temperature={temperature} has no effect with the loss mse. Remove it.")


def teacher_loss(teacher: TeacherArguments, problem_type: str | None) -> Literal["kl", "mse"]:
    """Return the loss of the teacher that a recipe sets, or the default of its problem type."""
    return teacher.loss or ("mse" if problem_type == "regression" else "kl")


def resolve_teacher(teacher: TeacherArguments, task: str, problem_type: str | None) -> dict[str, Any]:
    """Return the group `teacher` with all defaults, without the fields that have no effect."""
    fields = asdict(teacher)
    if TASKS[task].generates:
        return {key: value for key, value in fields.items() if key not in _NOT_FOR_GENERATION}
    fields["loss"] = teacher_loss(teacher, problem_type)
    if fields["loss"] == "mse":
        del fields["temperature"]
    return fields
