"""Metrics that work offline, and the evaluation functions that `Trainer` needs for them."""

from hf_maskattn.metrics.task_metrics import TaskEvaluation, evaluation_for
from hf_maskattn.metrics.text import evaluation_for_generation

__all__ = ["TaskEvaluation", "evaluation_for", "evaluation_for_generation"]
