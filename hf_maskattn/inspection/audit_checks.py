"""The checks of an audit: each changes something about the padding that must not change the outputs, and compares them.

A check takes the audited model and returns a finding. It raises `NotApplicableError` if it has no meaning for the model.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from hf_maskattn.inspection.audit_forward import (
    TOLERANCES,
    AuditedModel,
    Filler,
    build_finding,
    compare_outputs,
    select_worst,
)
from hf_maskattn.inspection.audit_report import FAILURES, NAN_UNDER_THE_MASK, Finding, Verdict
from hf_maskattn.inspection.audit_rows import EXTRA_COLUMNS, Placement, pad_between, pad_left, pad_right

_RELATIVE_POSITION_FIELDS = ("relative_attention", "relative_attention_num_buckets", "clamp_len")
_POSITION_FIELDS = ("max_position_embeddings", *_RELATIVE_POSITION_FIELDS)

_EMBEDDINGS = "gradient of the embeddings"


class NotApplicableError(Exception):
    """A check has no meaning for a model; the message is the reason."""


def check_single_rows(audited: AuditedModel) -> Finding:
    """Run each row alone, without padding."""
    single_outputs: dict[str, list[torch.Tensor]] = {name: [] for name in audited.token_axes}
    for row in range(len(audited.rows.lengths)):
        single = audited.rows.select([row])
        for name, values in audited.compute(pad_right(single.lengths), single).items():
            single_outputs[name].extend(values)
    return audited.compare(audited.reference, single_outputs)


def check_right_padding(audited: AuditedModel) -> Finding:
    """Add columns after all rows."""
    return audited.compare(audited.reference, audited.compute(pad_right(audited.rows.lengths, EXTRA_COLUMNS)))


def check_left_padding(audited: AuditedModel) -> Finding:
    """Move all padding before the tokens, and add columns."""
    return _compare_moved_tokens(audited, pad_left(audited.rows.lengths, EXTRA_COLUMNS))


def check_left_padding_without_positions(audited: AuditedModel) -> Finding:
    """Move all padding before the tokens without passing `position_ids`, as callers often do."""
    if not audited.has_position_ids:
        raise NotApplicableError("the model takes no position_ids")
    if not _is_causal(audited):
        raise NotApplicableError("applies to decoders only")
    return audited.compare(audited.reference, audited.compute(pad_left(audited.rows.lengths, EXTRA_COLUMNS)))


def check_ids_at_padding(audited: AuditedModel) -> Finding:
    """Write random ids to padding positions."""
    placement, with_positions = audited.inner_padding, audited.has_position_ids
    expected = audited.compute(placement, with_positions=with_positions, filler="padding")
    actual = audited.compute(placement, with_positions=with_positions, filler="random")
    return audited.compare(expected, actual)


@torch.no_grad()
def check_nan_at_padding(audited: AuditedModel) -> Finding:
    """Write NaN to the embeddings of padding positions."""
    if "inputs_embeds" not in audited.argument_names:
        raise NotApplicableError("the model takes no inputs_embeds")
    placement = audited.inner_padding
    inputs = audited.build_inputs(audited.rows, placement, with_positions=audited.has_position_ids)
    is_padding = ~placement.mask.to(audited.model.device)[..., None]
    embedded = audited.embeddings(inputs.pop("input_ids"))

    def compute(value: float) -> Mapping:
        outputs = audited.forward({**inputs, "inputs_embeds": embedded.masked_fill(is_padding, value)})
        return audited.select_tokens(outputs, placement)

    return audited.compare(compute(0.0), compute(float("nan")))


def check_holes(audited: AuditedModel) -> Finding:
    """Place padding between the tokens."""
    return _compare_moved_tokens(audited, pad_between(audited.rows.lengths))


@torch.no_grad()
def check_empty_row(audited: AuditedModel) -> Finding:
    """Append a row without tokens: its outputs must be finite, and those of other rows must not change."""
    rows = audited.rows.append_empty_row()
    placement = pad_right(rows.lengths)
    outputs = audited.forward(audited.build_inputs(rows, placement))
    for name in audited.token_axes:
        if not outputs[name][-1].isfinite().all():
            reason = "in the outputs of the row without tokens"
            return Finding(Verdict.NOT_FINITE, output=name, row=len(rows.lengths) - 1, reason=reason)
    other_rows = {name: values[:-1] for name, values in audited.select_tokens(outputs, placement).items()}
    return audited.compare(audited.reference, other_rows)


def check_row_order(audited: AuditedModel) -> Finding:
    """Reverse the order of the rows."""
    if len(audited.rows.lengths) == 1:
        raise NotApplicableError("the batch has only one row")
    reversed_rows = audited.rows.select([*reversed(range(len(audited.rows.lengths)))])
    outputs = audited.compute(pad_right(reversed_rows.lengths), reversed_rows)
    return audited.compare(audited.reference, {name: values[::-1] for name, values in outputs.items()})


def _compare_moved_tokens(audited: AuditedModel, placement: Placement) -> Finding:
    """Compare moved tokens with those of the reference, with `position_ids` if the model takes them.

    A model with position embeddings but without `position_ids`, or with relative positions, depends on the columns of tokens.
    Its outputs for two kinds of ids at padding positions are compared instead.
    """
    with_positions = audited.has_position_ids
    moved = audited.compute(placement, with_positions=with_positions)
    random_ids = audited.compute(placement, with_positions=with_positions, filler="random")
    reference = audited.compute(pad_right(audited.rows.lengths), with_positions=with_positions)
    by_padding_ids = audited.compare(moved, random_ids)
    by_position = audited.compare(reference, moved)
    config = audited.model.config.get_text_config()
    fields = _RELATIVE_POSITION_FIELDS if with_positions else _POSITION_FIELDS
    field = next((name for name in fields if getattr(config, name, None)), None)
    if by_position.verdict is Verdict.LEAKS and field and by_padding_ids.verdict not in FAILURES:
        reason = f"outputs depend on token positions ({field}), so only the ids at padding positions were changed"
        return replace(by_padding_ids, reason=reason)
    return select_worst([by_padding_ids, by_position])


def _is_causal(audited: AuditedModel) -> bool:
    """Whether the outputs of tokens do not depend on the last token of their row."""

    def drop_last_tokens(outputs: Mapping) -> dict[str, list[torch.Tensor]]:
        return {name: [row[:-1] for row in outputs[name]] for name in audited.per_token}

    changed = audited.compute(pad_right(audited.rows.lengths), audited.rows.replace_last_tokens())
    finding = compare_outputs(drop_last_tokens(audited.reference), drop_last_tokens(changed))
    return finding.verdict is not Verdict.LEAKS


@torch.no_grad()
def check_attention_to_padding(audited: AuditedModel) -> Finding:
    """Sum the attention of tokens to padding positions, which must be 0."""
    names = _find_attention_outputs(audited)
    placement = audited.inner_padding
    outputs = audited.forward(audited.build_inputs(audited.rows, placement, with_positions=audited.has_position_ids))
    findings = []
    for name in names:
        for row, mask in enumerate(placement.mask):
            attention = _sum_attention(audited, outputs, name, placement, row, ~mask)
            findings.append(build_finding(float(attention.max()), TOLERANCES[outputs[name].dtype], output=name, row=row))
    return select_worst(findings)


@torch.no_grad()
def check_attention_to_tokens(audited: AuditedModel) -> Finding:
    """Sum the attention of tokens to tokens, which must be the same as without padding."""
    names = _find_attention_outputs(audited)
    placement = audited.inner_padding
    outputs = audited.forward(audited.build_inputs(audited.rows, placement, with_positions=audited.has_position_ids))
    findings = []
    for row, mask in enumerate(placement.mask):
        single = audited.rows.select([row])
        unpadded = pad_right(single.lengths)
        single_outputs = audited.forward(audited.build_inputs(single, unpadded))
        for name in names:
            expected = _sum_attention(audited, single_outputs, name, unpadded, 0, unpadded.mask[0])
            attention = _sum_attention(audited, outputs, name, placement, row, mask)
            difference = float((expected - attention).abs().max())
            findings.append(build_finding(difference, TOLERANCES[outputs[name].dtype], output=name, row=row))
    return select_worst(findings)


def _find_attention_outputs(audited: AuditedModel) -> list[str]:
    """Find the attention weights among the outputs: those whose last axis indexes tokens."""
    names = [name for name, axes in audited.token_axes.items() if "attentions" in name and axes[-1:] == (-1,)]
    if names:
        return names
    implementation = getattr(audited.model.config, "_attn_implementation", None)
    if implementation in (None, "eager"):
        raise NotApplicableError("the model returns no attention weights")
    raise NotApplicableError(f'{implementation} computes no attention weights; load the model with attn_implementation="eager"')


def _sum_attention(
    audited: AuditedModel,
    outputs: Mapping[str, torch.Tensor],
    name: str,
    placement: Placement,
    row: int,
    columns: torch.Tensor,
) -> torch.Tensor:
    """Sum the weights `[heads, Tq, Tk]` of a row over some columns, for queries that are tokens."""
    weights = outputs[name][row].cpu().double()
    for axis in audited.token_axes[name][:-1]:
        weights = weights.index_select(axis, placement.columns[row])
    return weights[..., columns].sum(dim=-1)


def check_gradients_at_padding(audited: AuditedModel) -> Finding:
    """Compute the gradients of the embeddings of padding positions, which must be 0."""
    grad_embeddings, _ = _compute_gradients(audited, "padding")
    is_padding = ~audited.inner_padding.mask
    if grad_embeddings.shape[:2] != is_padding.shape and "inputs_embeds" in audited.argument_names:
        # The model embeds only some of the columns; with `inputs_embeds` all columns have a gradient.
        grad_embeddings, _ = _compute_gradients(audited, "padding", pass_embeddings=True)
    if grad_embeddings.shape[:2] != is_padding.shape:
        raise NotApplicableError("the embeddings do not have the shape [batch, tokens, width]")
    if not grad_embeddings.isfinite().all():
        return Finding(Verdict.NOT_FINITE, output=_EMBEDDINGS)
    sizes = grad_embeddings.abs().amax(dim=-1)  # [B, T]
    tolerance = TOLERANCES[grad_embeddings.dtype] * float(sizes.max())
    at_padding = sizes.masked_fill(~is_padding, 0).amax(dim=-1)  # [B]
    return build_finding(float(at_padding.max()), tolerance, output=_EMBEDDINGS, row=int(at_padding.argmax()))


def check_gradients_with_random_ids(audited: AuditedModel) -> Finding:
    """Compare the gradients of all parameters with those for random ids at padding positions."""
    _, expected = _compute_gradients(audited, "padding")
    _, actual = _compute_gradients(audited, "random")
    if not expected:
        raise NotApplicableError("no parameter requires a gradient")
    # Gradients of a bias before a softmax are rounding errors, which are small only in comparison to other gradients.
    scale = max(float(gradient.abs().max()) for (gradient,) in expected.values())
    return replace(compare_outputs(expected, actual, scale=scale), row=None)


def _compute_gradients(
    audited: AuditedModel, filler: Filler, pass_embeddings: bool = False
) -> tuple[torch.Tensor, dict[str, list[torch.Tensor]]]:
    """Differentiate a weighted sum of all outputs at tokens, for ids, or their embeddings, with a filler at padding positions.

    Returns:
        The gradient of the embeddings `[B, T, E]`, and the gradients of parameters by name.
    """
    placement = audited.inner_padding
    embedded: list[torch.Tensor] = []

    def save_embeddings(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        embedded.append(output if output.requires_grad else output.requires_grad_())

    hook = audited.embeddings.register_forward_hook(save_embeddings)
    try:
        # cuDNN saves what the backward pass of a recurrent layer needs in training mode only.
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            inputs = audited.build_inputs(audited.rows, placement, filler=filler, with_positions=audited.has_position_ids)
            if pass_embeddings:
                inputs["inputs_embeds"] = audited.embeddings(inputs.pop("input_ids"))
            outputs = audited.select_tokens(audited.forward(inputs), placement)
            # Each value has another weight, since the plain sum over a layer norm has no gradient.
            values = torch.cat([row.cpu().double().flatten() for rows in outputs.values() for row in rows])
            loss = (values * torch.arange(len(values)).sin()).sum()
            parameters = {name: value for name, value in audited.model.named_parameters() if value.requires_grad}
            leaves = [embedded[0], *parameters.values()]
            # In torch 2.8, the zeros of an output that has no gradient require one themselves.
            gradients = [gradient.detach() for gradient in torch.autograd.grad(loss, leaves, materialize_grads=True)]
    finally:
        hook.remove()
    names = [f"gradient of {name}" for name in parameters]
    return gradients[0].cpu(), {name: [gradient.cpu()] for name, gradient in zip(names, gradients[1:], strict=True)}


Check = Callable[[AuditedModel], Finding]

CHECKS: dict[str, Check] = {
    "batch against alone": check_single_rows,
    "extra padding right": check_right_padding,
    "extra padding left": check_left_padding,
    "left, no position ids": check_left_padding_without_positions,
    "junk under the mask": check_ids_at_padding,
    NAN_UNDER_THE_MASK: check_nan_at_padding,
    "holes": check_holes,
    "empty row": check_empty_row,
    "permuted rows": check_row_order,
    "attention to pads": check_attention_to_padding,
    "attention to tokens": check_attention_to_tokens,
}
GRADIENT_CHECKS: dict[str, Check] = {
    "gradients at pads": check_gradients_at_padding,
    "gradients under junk": check_gradients_with_random_ids,
}
