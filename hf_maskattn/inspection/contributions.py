"""Exact contributions of tokens to the logits of the models of this package, and their attention weights."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from hf_maskattn.inspection.explained_outputs import ExplainedOutputs, Scores, class_outputs, normalize_tags, tag_outputs
from hf_maskattn.inspection.explained_texts import ExplainedText, pad_rows, stack_texts
from hf_maskattn.model.masking import at_least_float32

Explained = list[tuple[ExplainedOutputs, Scores]]
"""Outputs and scores of each text."""

_ALL = slice(None)


def split_logits(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Split the logits of a batch into contributions of its tokens.

    The head is linear over the context, and the context is a weighted sum of states, so that with weights w_ht of head h, its
    slice s_ht of the state of token t, and the matching slice W_ch of the classifier's row of class c

        logit_c = b_c + sum over t of (sum over h of w_ht W_ch . s_ht)

    whose inner sum is the contribution of token t.

    Args:
        model: A sequence classifier of this package, in eval mode.
        inputs: Inputs of its forward, with any `attention_mask`.

    Returns:
        Contributions `[B, T, classes]`, exactly 0 at padding, and logits `[B, classes]`, both at least float32.
    """
    outputs = model.maskattn(**inputs, output_attentions=True)
    contributions = split_context(model, outputs.last_hidden_state, outputs.attentions[0])
    return contributions, at_least_float32(model.classifier(outputs.pooler_output))


def split_context(
    model: PreTrainedModel, states: torch.Tensor, attentions: torch.Tensor, classes: Sequence[int] | slice = _ALL
) -> torch.Tensor:
    """Compute the contributions `[B, T, classes]` of `split_logits` from the outputs of the encoder.

    Args:
        model: The sequence classifier.
        states: `[B, T, H]`, the last hidden states.
        attentions: `[B, heads, 1, T]`, the attention weights.
        classes: The classes, by default all.
    """
    return _weigh_states(states, attentions) @ at_least_float32(model.classifier.weight)[classes].T


def _weigh_states(states: torch.Tensor, attentions: torch.Tensor) -> torch.Tensor:
    """Multiply the slice of each state `[B, T, H]` with the weight of its head, `[B, heads, 1, T]`."""
    weights = at_least_float32(attentions[:, :, 0]).transpose(1, 2)  # [B, T, heads]
    values = at_least_float32(states).unflatten(-1, (weights.shape[2], -1))  # [B, T, heads, H / heads]
    return (values * weights[..., None]).flatten(2)


def compute_contributions(
    model: PreTrainedModel,
    rows: Sequence[ExplainedText],
    columns: Sequence[int] | None = None,
    joint_model: PreTrainedModel | None = None,
) -> Explained:
    """Split the logits of texts, or of the tags of their tokens, into contributions; see `split_logits`.

    The logit of a tag is linear over the context and the state of its own token. The part of the state is added to the
    contribution of that token.

    Args:
        model: A sequence classifier, or a tagger without CRF, of this package in eval mode.
        rows: The texts.
        columns: The classes of a sequence classifier, or units of a tagger, to explain; None selects all.
        joint_model: The model for joint classification whose classifier of texts `model` is. It runs instead, for its tags.

    Returns:
        Scores of each text, which add up to its logits.
    """
    outputs = _run(model, rows, columns, joint_model)
    if hasattr(model, "token_classifier"):
        return _split_tags(model, rows, outputs)
    ids = outputs.chosen[0].ids
    parts = split_context(model, outputs.states, outputs.attentions, ids).cpu()
    base = at_least_float32(model.classifier.bias)[ids].cpu()
    return [
        (row_outputs, Scores(row.sum_over_units(row_parts[: len(row)]), base, row_outputs.select(logits)))
        for row, row_outputs, row_parts, logits in zip(rows, outputs.chosen, parts, outputs.logits, strict=True)
    ]


def _split_tags(model: PreTrainedModel, rows: Sequence[ExplainedText], outputs: "_Outputs") -> Explained:
    """Split the logits of the tags of texts into the parts of their tokens."""
    positions = pad_rows([row.positions or [] for row in outputs.chosen])  # [B, columns]
    tags = outputs.logits.argmax(dim=-1).gather(1, positions)
    state_kernel, context_kernel = at_least_float32(model.token_classifier.weight).chunk(2, dim=1)  # [tags, H]
    state_parts = (at_least_float32(outputs.states) @ state_kernel.T).cpu()  # [B, T, tags]
    context_parts = (_weigh_states(outputs.states, outputs.attentions) @ context_kernel.T).cpu()
    batch = torch.arange(len(rows))[:, None]
    scores = context_parts.gather(2, tags[:, None].expand(-1, context_parts.shape[1], -1))  # [B, T, columns]
    scores.scatter_add_(1, positions[:, None], state_parts[batch, positions, tags][:, None])
    bias = at_least_float32(model.token_classifier.bias).cpu()[tags]  # [B, columns]
    logits = outputs.logits[batch, positions, tags]
    results = []
    for row, row_outputs, row_scores, row_bias, row_logits in zip(rows, outputs.chosen, scores, bias, logits, strict=True):
        count = len(row_outputs.ids)
        row_scores = row.sum_over_units(row_scores[: len(row), :count])
        results.append((row_outputs, Scores(row_scores, row_bias[:count], row_logits[:count])))
    return results


def compute_attention(
    model: PreTrainedModel,
    rows: Sequence[ExplainedText],
    columns: Sequence[int] | None = None,
    joint_model: PreTrainedModel | None = None,
) -> Explained:
    """Return the attention weights of the tokens, the mean over heads, as the score for every output.

    The arguments are those of `compute_contributions`; a tagger may have a CRF. The scores of a text sum to one, and do not add
    up to the logits.
    """
    outputs = _run(model, rows, columns, joint_model)
    weights = at_least_float32(outputs.attentions[:, :, 0]).mean(dim=1).cpu()  # [B, T]
    results = []
    for row, row_outputs, row_weights, logits in zip(rows, outputs.chosen, weights, outputs.logits, strict=True):
        if row_outputs.positions is not None:
            logits = normalize_tags(model.config, logits)
        scores = row_weights[: len(row), None].expand(-1, len(row_outputs.ids))
        base = torch.zeros(len(row_outputs.ids))
        results.append((row_outputs, Scores(row.sum_over_units(scores), base, row_outputs.select(logits))))
    return results


class _Outputs(NamedTuple):
    """What a model returns for a batch of texts.

    Attributes:
        states: `[B, T, H]`, the last hidden states.
        attentions: `[B, heads, 1, T]`.
        logits: `[B, classes]` of a classifier of texts, `[B, T, tags]` of a tagger; at least float32, on the CPU.
        chosen: The outputs of each text that are explained.
    """

    states: torch.Tensor
    attentions: torch.Tensor
    logits: torch.Tensor
    chosen: list[ExplainedOutputs]


def _run(
    model: PreTrainedModel,
    rows: Sequence[ExplainedText],
    columns: Sequence[int] | None,
    joint_model: PreTrainedModel | None,
) -> _Outputs:
    """Run a classifier of texts or a tagger, or instead the model for both whose classifier of texts it is."""
    inputs = stack_texts(rows, model.device)
    outputs = (joint_model or model)(**inputs, output_attentions=True, output_hidden_states=True)
    logits = at_least_float32(outputs.logits).cpu()
    if hasattr(model, "token_classifier"):
        chosen = tag_outputs(model.config, rows, logits, columns)
    else:
        chosen = [class_outputs(model.config, columns)] * len(rows)
    if joint_model is not None:
        chosen = [replace(classes, tag_logits=tags) for classes, tags in zip(chosen, logits, strict=True)]
        logits = at_least_float32(outputs.sequence_logits).cpu()
    return _Outputs(outputs.hidden_states[-1], outputs.attentions[0], logits, chosen)
