"""Metrics that work offline, and what `Trainer` needs to report them."""

from hf_maskattn.evaluation.generation_evaluation import evaluation_for_generation
from hf_maskattn.evaluation.task_evaluation import TaskEvaluation, evaluation_for

__all__ = ["TaskEvaluation", "evaluation_for", "evaluation_for_generation"]
