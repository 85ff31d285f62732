"""Metrics that work offline, and what `Trainer` needs to report them."""

from hf_maskattn.metrics.generation_metrics import evaluation_for_generation
from hf_maskattn.metrics.task_metrics import TaskEvaluation, evaluation_for

__all__ = ["TaskEvaluation", "evaluation_for", "evaluation_for_generation"]
