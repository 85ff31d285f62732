"""Attributions by gradients, computed by captum."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from transformers import PreTrainedModel

from hf_maskattn.inspection.contributions import Explained
from hf_maskattn.inspection.explained_outputs import ExplainedOutputs, Scores, class_outputs, tag_outputs
from hf_maskattn.inspection.explained_texts import ExplainedText, stack_texts
from hf_maskattn.model.masking import at_least_float32
from hf_maskattn.model.remote_code import install_command

INTEGRATION_STEPS = 50
"""Points at which integrated gradients evaluate the gradient, as is captum's default."""

_ROWS_PER_BATCH = 64


def check_captum() -> None:
    """Reject gradient methods where captum is not installed.

    Raises:
        ImportError: With the command that installs it.
    """
    try:
        import captum.attr  # noqa: F401
    except ImportError as error:
        raise ImportError(f"integrated_gradients and gradient_x_input need captum: {install_command('explain')}") from error


def compute_attributions(
    model: PreTrainedModel,
    rows: Sequence[ExplainedText],
    columns: Sequence[int] | None = None,
    *,
    method: Literal["integrated_gradients", "gradient_x_input"],
) -> Explained:
    """Attribute outputs to the embeddings of the tokens, and sum over the width of the embedding.

    The baseline of integrated gradients is the text with an embedding of 0 for each token.

    Args:
        model: A classifier of texts or a tagger that takes `inputs_embeds`, in eval mode.
        rows: The texts.
        columns: The classes of a sequence classifier, or units of a tagger, to explain; None selects all. Each costs a backward
            pass, and with integrated gradients `INTEGRATION_STEPS` of them.
        method: "integrated_gradients" or "gradient_x_input".

    Returns:
        Scores of each text. The base is the output of the baseline.

    Source:
        Sundararajan et al. 2017 (arXiv:1703.01365); Shrikumar et al. 2016 (arXiv:1605.01713).
    """
    from captum.attr import InputXGradient, IntegratedGradients

    inputs = stack_texts(rows, model.device)
    embedded = model.get_input_embeddings()(inputs.pop("input_ids")).detach().requires_grad_()  # [B, T, E]
    names, extra_inputs = [*inputs], tuple(inputs.values())

    def forward(embedded: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        named = {name: value.long() for name, value in zip(names, values, strict=True)}
        return at_least_float32(model(inputs_embeds=embedded, **named).logits)

    with torch.no_grad():
        logits = forward(embedded, *extra_inputs).cpu()
        base = forward(torch.zeros_like(embedded), *extra_inputs).cpu()
    if logits.dim() == 3:
        chosen = tag_outputs(model.config, rows, logits, columns)
    else:
        chosen = [class_outputs(model.config, columns)] * len(rows)
    attribution = IntegratedGradients(forward) if method == "integrated_gradients" else InputXGradient(forward)
    options: dict[str, Any] = {}
    if method == "integrated_gradients":
        options = {"n_steps": INTEGRATION_STEPS, "internal_batch_size": max(_ROWS_PER_BATCH, len(rows))}
    parts = []
    # cuDNN saves what the backward pass of a recurrent layer needs in training mode only.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        for column in range(max(len(outputs.ids) for outputs in chosen)):
            targets = [_target(outputs, min(column, len(outputs.ids) - 1)) for outputs in chosen]
            grads = attribution.attribute(embedded, target=targets, additional_forward_args=extra_inputs, **options)
            parts.append(at_least_float32(grads.detach()).sum(dim=-1).cpu())
    scores = torch.stack(parts, dim=-1)  # [B, T, columns]
    return [
        (
            outputs,
            Scores(
                row.sum_over_units(row_scores[: len(row), : len(outputs.ids)]),
                outputs.select(row_base),
                outputs.select(row_logits),
            ),
        )
        for row, outputs, row_scores, row_base, row_logits in zip(rows, chosen, scores, base, logits, strict=True)
    ]


def _target(outputs: ExplainedOutputs, column: int) -> int | tuple[int, int]:
    """Return the index of a column in the logits of a row."""
    return outputs.ids[column] if outputs.positions is None else (outputs.positions[column], outputs.ids[column])
