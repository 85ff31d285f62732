"""Exact contributions of tokens to the logits of the models of this package, and their attention weights."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from hf_maskattn.inspection.explained_outputs import ExplainedOutputs, Scores, class_outputs, normalize_tags, tag_outputs
from hf_maskattn.inspection.explained_texts import ExplainedText, stack_texts
from hf_maskattn.model.masking import at_least_float32

Explained = list[tuple[ExplainedOutputs, Scores]]
"""Outputs and scores of each text."""

_ALL = slice(None)


def split_logits(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], classes: Sequence[int] | slice = _ALL
) -> tuple[torch.Tensor, torch.Tensor]:
    """Split the logits of a batch into contributions of its tokens.

    The head is linear over the context, and the context is a weighted sum of states, so that with weights w_ht of head h, its
    slice s_ht of the state of token t, and the matching slice W_ch of the classifier's row of class c

        logit_c = b_c + sum over t of (sum over h of w_ht W_ch . s_ht)

    of which the inner sum is the contribution of token t.

    Args:
        model: A sequence classifier of this package, in eval mode.
        inputs: Inputs of its forward, with any `attention_mask`.
        classes: The classes, by default all.

    Returns:
        Contributions `[B, T, classes]`, exactly 0 at padding, and logits `[B, classes]`, both at least float32.
    """
    outputs = model.maskattn(**inputs, output_attentions=True)
    contributions = split_context(model, outputs.last_hidden_state, outputs.attentions[0], classes)
    return contributions, at_least_float32(model.classifier(outputs.pooler_output))[:, classes]


def split_context(
    model: PreTrainedModel, states: torch.Tensor, attentions: torch.Tensor, classes: Sequence[int] | slice = _ALL
) -> torch.Tensor:
    """Compute the contributions of `split_logits` from the outputs of the encoder.

    Args:
        model: The sequence classifier.
        states: `[B, T, H]`, the last hidden states.
        attentions: `[B, heads, 1, T]`, the attention weights.
        classes: The classes, by default all.

    Returns:
        Contributions `[B, T, classes]`.
    """
    return _weigh_states(states, attentions) @ at_least_float32(model.classifier.weight)[classes].T


def _weigh_states(states: torch.Tensor, attentions: torch.Tensor) -> torch.Tensor:
    """Multiply the slice of each state `[B, T, H]` with the weight of its head, `[B, heads, 1, T]`."""
    weights = at_least_float32(attentions[:, :, 0]).transpose(1, 2)  # [B, T, heads]
    values = at_least_float32(states).unflatten(-1, (weights.shape[2], -1))  # [B, T, heads, H / heads]
    return (values * weights[..., None]).flatten(2)


def compute_contributions(
    model: PreTrainedModel, rows: Sequence[ExplainedText], columns: Sequence[int] | None = None
) -> Explained:
    """Split the logits of texts, or of the tags of their tokens, into contributions; see `split_logits`.

    The logit of a tag is linear over the context and the state of its own token. The part of the state is added to the
    contribution of that token.

    Args:
        model: A sequence classifier, or a tagger without CRF, of this package in eval mode.
        rows: The texts.
        columns: The classes of a sequence classifier, or units of a tagger, to explain; None selects all.

    Returns:
        Scores of each text, which add up to its logits.
    """
    inputs, _ = stack_texts(rows, model.device)
    if not hasattr(model, "token_classifier"):
        chosen = class_outputs(model.config, columns)
        parts, logits = split_logits(model, inputs, chosen.ids)
        base = at_least_float32(model.classifier.bias)[chosen.ids].cpu()
        return [
            (chosen, Scores(row.sum_over_units(row_parts[: len(row)]), base, row_logits))
            for row, row_parts, row_logits in zip(rows, parts.cpu(), logits.cpu(), strict=True)
        ]
    outputs = model.maskattn(**inputs, output_attentions=True)
    states = outputs.last_hidden_state  # [B, T, H]
    features = torch.cat([states, outputs.pooler_output[:, None].expand_as(states)], dim=-1)
    logits = at_least_float32(model.token_classifier(features)).cpu()  # [B, T, tags]
    weighted = _weigh_states(states, outputs.attentions[0]).cpu()
    states = at_least_float32(states).cpu()
    return [_split_tags(model, columns, *values) for values in zip(rows, logits, weighted, states, strict=True)]


def _split_tags(
    model: PreTrainedModel,
    columns: Sequence[int] | None,
    row: ExplainedText,
    logits: torch.Tensor,
    weighted: torch.Tensor,
    states: torch.Tensor,
) -> tuple[ExplainedOutputs, Scores]:
    """Split the logits of the tags of a text into the parts of its tokens."""
    chosen = tag_outputs(model.config, row, logits, columns)
    state_kernel, context_kernel = at_least_float32(model.token_classifier.weight).cpu()[chosen.ids].chunk(2, dim=1)
    scores = weighted[: len(row)] @ context_kernel.T  # [n, columns]
    scores[chosen.positions, range(len(chosen.ids))] += (states[chosen.positions] * state_kernel).sum(dim=1)
    bias = at_least_float32(model.token_classifier.bias).cpu()[chosen.ids]
    return chosen, Scores(row.sum_over_units(scores), bias, chosen.select(logits))


def compute_attention(model: PreTrainedModel, rows: Sequence[ExplainedText], columns: Sequence[int] | None = None) -> Explained:
    """Return the attention weights of the tokens, the mean over heads, as the score for every output.

    Args:
        model: A sequence classifier or tagger of this package in eval mode.
        rows: The texts.
        columns: The classes of a sequence classifier, or units of a tagger, to explain; None selects all.

    Returns:
        Scores of each text. They sum to one, and do not add up to the logits.
    """
    inputs, _ = stack_texts(rows, model.device)
    outputs = model(**inputs, output_attentions=True)
    weights = at_least_float32(outputs.attentions[0][:, :, 0]).mean(dim=1).cpu()  # [B, T]
    results = []
    for row, row_weights, logits in zip(rows, weights, at_least_float32(outputs.logits).cpu(), strict=True):
        is_tagger = logits.dim() == 2
        logits = normalize_tags(model.config, logits) if is_tagger else logits
        chosen = tag_outputs(model.config, row, logits, columns) if is_tagger else class_outputs(model.config, columns)
        scores = row_weights[: len(row), None].expand(-1, len(chosen.ids))
        base = torch.zeros(len(chosen.ids))
        results.append((chosen, Scores(row.sum_over_units(scores), base, chosen.select(logits))))
    return results
