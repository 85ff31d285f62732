"""The evaluation of a task, in the form that `Trainer` and `Seq2SeqTrainer` expect."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from transformers import EvalPrediction

from hf_maskattn.model.remote_code import install_command
from hf_maskattn.tasks import TASKS

LOWER_IS_BETTER = frozenset({"loss", "mse", "cer", "wer", "per"})


@dataclass(frozen=True)
class TaskEvaluation:
    """Evaluation of a task.

    Attributes:
        metric_names: Names of the metrics; the first one selects the best checkpoint.
        compute_metrics: For `Trainer(compute_metrics=...)`: predictions and labels -> name to value.
        preprocess_logits: For `Trainer(preprocess_logits_for_metrics=...)`: logits and labels -> predictions. With two heads
            each of them is a pair.
        include_for_metrics: For `TrainingArguments(include_for_metrics=...)`: further inputs of `compute_metrics`.
        score_predictions: Logits and labels -> scores of the predictions, for the analysis of errors. None without scores.
    """

    metric_names: tuple[str, ...]
    compute_metrics: Callable[[EvalPrediction], dict[str, float]]
    preprocess_logits: Callable[[Any, Any], Any]
    include_for_metrics: tuple[str, ...] = ()
    score_predictions: Callable[[Any, Any], Any] | None = None


TEACHER_PREFIX = "teacher_"
"""Prefix of the metrics of the teacher that a model was distilled from."""

AGREEMENT = "agreement"
"""Fraction of the predictions of a model that are equal to those of its teacher."""


def evaluation_for(
    task: str, *, problem_type: str | None = None, label_names: Sequence[str] = (), tag_scheme: str | None = None
) -> TaskEvaluation:
    """Return the evaluation of a task.

    Args:
        task: "text-classification", "token-classification" or "fill-mask".
        problem_type: For text classification: "single_label_classification" (the same as None),
            "multi_label_classification" or "regression".
        label_names: For token classification: tags by id. Tags such as "B-DATE" are scored as spans.
        tag_scheme: For token classification: scheme of the tags of the data. With "none" no tags are scored as spans.

    Returns:
        Metrics that ignore positions with the label -100.

    Raises:
        ValueError: The task or problem type does not exist.
        ImportError: Tags are scored as spans, but seqeval is not installed.
    """
    if task not in TASKS or TASKS[task].generates:
        names = [name for name, known in TASKS.items() if not known.generates]
        raise ValueError(f"task must be one of {', '.join(names)}, got {task!r}.")
    return TASKS[task].metrics.load()(problem_type=problem_type, label_names=label_names, tag_scheme=tag_scheme)


def require_package(name: str, purpose: str) -> None:
    """Check before training, rather than after the first epoch, that a package of some metrics is installed.

    Raises:
        ImportError: It is not.
    """
    if find_spec(name) is None:
        raise ImportError(f"{purpose} require {name}, which is not installed: {install_command('examples')}")
