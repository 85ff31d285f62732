"""Names that differ between the supported versions of other packages."""

from transformers import PreTrainedModel

ACTIVATION_CHECKPOINTING = (
    "activation_checkpointing" if hasattr(PreTrainedModel, "activation_checkpointing_enable") else "gradient_checkpointing"
)
"""The field of `TrainingArguments` and the first part of the methods of models: its name before transformers 5.23, or since."""


def enable_checkpointing(model, arguments=None):
    """Let a model compute its activations again in the backward pass."""
    getattr(model, f"{ACTIVATION_CHECKPOINTING}_enable")(arguments)
