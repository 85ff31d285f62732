"""What the head of a saved model does, by the class that it was saved as."""

from collections.abc import Sequence

TASKS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForMaskedLM": "fill-mask",
}
"""Pipeline of each ending of a class name."""


def task_of(architectures: Sequence[str] | None) -> str | None:
    """Find the pipeline of a model.

    Args:
        architectures: The `architectures` of its configuration.

    Returns:
        The task; None for a model without a head.
    """
    return next((task for ending, task in TASKS.items() if any(name.endswith(ending) for name in architectures or ())), None)
