"""The checks of an audit: each changes what must not matter, and compares.

A check takes the audited model and returns what it found; it raises `NotApplicableError` if it has no meaning for the model.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch

from hf_maskattn.inspection.audit_forward import TOLERANCES, AuditedModel, compare, judge, worst
from hf_maskattn.inspection.audit_report import FAILURES, Finding, Verdict
from hf_maskattn.inspection.audit_rows import EXTRA_PADS, Placement, padded_left, padded_right, scattered

_RELATIVE_POSITIONS = ("relative_attention", "relative_attention_num_buckets", "clamp_len")
_ANY_POSITIONS = ("max_position_embeddings", *_RELATIVE_POSITIONS)


class NotApplicableError(Exception):
    """A check has no meaning for a model; says why."""


def batch_against_alone(audited: AuditedModel) -> Finding:
    """Run each row alone, without a pad."""
    alone: dict[str, list[torch.Tensor]] = {name: [] for name in audited.axes}
    for row in range(len(audited.rows.lengths)):
        single = audited.rows.select([row])
        for name, values in audited.read(padded_right(single.lengths), single).items():
            alone[name].extend(values)
    return audited.compare(audited.home, alone)


def extra_padding_right(audited: AuditedModel) -> Finding:
    """Add columns behind all rows."""
    return audited.compare(audited.home, audited.read(padded_right(audited.rows.lengths, EXTRA_PADS)))


def extra_padding_left(audited: AuditedModel) -> Finding:
    """Move all pads before the tokens, and add some."""
    return _moved(audited, padded_left(audited.rows.lengths, EXTRA_PADS))


def extra_padding_left_without_positions(audited: AuditedModel) -> Finding:
    """Move all pads before the tokens, as a caller who forgets position ids does."""
    if not audited.takes_positions:
        raise NotApplicableError("takes no position_ids")
    if not _reads_only_the_past(audited):
        raise NotApplicableError("asked of decoders only")
    return audited.compare(audited.home, audited.read(padded_left(audited.rows.lengths, EXTRA_PADS)))


def junk_under_the_mask(audited: AuditedModel) -> Finding:
    """Write other ids into pads."""
    placement = audited.pads_within
    plain, junk = (audited.read(placement, positions=audited.takes_positions, pads=pads) for pads in ("padding", "junk"))
    return audited.compare(plain, junk)


@torch.no_grad()
def nan_under_the_mask(audited: AuditedModel) -> Finding:
    """Write NaN into the embeddings of pads."""
    if "inputs_embeds" not in audited.signature.names:
        raise NotApplicableError("takes no inputs_embeds")
    placement = audited.pads_within
    inputs = audited.inputs(audited.rows, placement, positions=audited.takes_positions)
    mask = placement.mask.to(audited.model.device)[..., None]
    embedded = audited.embeddings(inputs.pop("input_ids"))
    zero, nan = (
        audited.read_outputs(audited.run({**inputs, "inputs_embeds": embedded.masked_fill(~mask, value)}), placement)
        for value in (0.0, float("nan"))
    )
    return audited.compare(zero, nan)


def holes(audited: AuditedModel) -> Finding:
    """Spread pads between the tokens."""
    return _moved(audited, scattered(audited.rows.lengths))


@torch.no_grad()
def empty_row(audited: AuditedModel) -> Finding:
    """Add a row without a real token: all that the model says of it is finite, and other rows do not change."""
    rows = audited.rows.with_empty_row()
    placement = padded_right(rows.lengths)
    outputs = audited.run(audited.inputs(rows, placement))
    for name in audited.axes:
        if not outputs[name][-1].isfinite().all():
            return Finding(Verdict.NOT_FINITE, output=name, row=len(rows.lengths) - 1, reason="in the empty row itself")
    others = {name: values[:-1] for name, values in audited.read_outputs(outputs, placement).items()}
    return audited.compare(audited.home, others)


def permuted_rows(audited: AuditedModel) -> Finding:
    """Reverse the order of the rows."""
    if len(audited.rows.lengths) == 1:
        raise NotApplicableError("the batch has one row")
    backwards = audited.rows.select([*reversed(range(len(audited.rows.lengths)))])
    found = audited.read(padded_right(backwards.lengths), backwards)
    return audited.compare(audited.home, {name: values[::-1] for name, values in found.items()})


def _home(audited: AuditedModel) -> Placement:
    """How a tokenizer pads: behind the tokens, to the longest row."""
    return padded_right(audited.rows.lengths)


def _moved(audited: AuditedModel, placement: Placement) -> Finding:
    """Compare moved tokens with those of the usual batch, with position ids where the model takes them.

    A model that sees where a token stands and cannot be told better is judged by what stands under its pads alone.
    """
    positions = audited.takes_positions
    moved = audited.read(placement, positions=positions)
    under_pads = audited.compare(moved, audited.read(placement, positions=positions, pads="junk"))
    by_place = audited.compare(audited.read(_home(audited), positions=positions), moved)
    config = audited.model.config.get_text_config()
    fields = _RELATIVE_POSITIONS if positions else _ANY_POSITIONS
    seen = next((name for name in fields if getattr(config, name, None)), None)
    if by_place.verdict is Verdict.LEAKS and seen and under_pads.verdict not in FAILURES:
        return replace(under_pads, reason=f"places count in this model ({seen}): judged by junk under the pads")
    return worst([under_pads, by_place])


def _reads_only_the_past(audited: AuditedModel) -> bool:
    """Whether another last token changes nothing at the tokens before it."""
    expected, found = (
        {name: [row[:-1] for row in values] for name, values in reading.items() if name in audited.per_token}
        for reading in (
            audited.home,
            audited.read(_home(audited), audited.rows.with_other_last_tokens()),
        )
    )
    return compare(expected, found).verdict is not Verdict.LEAKS


@torch.no_grad()
def attention_to_pads(audited: AuditedModel) -> Finding:
    """Add up the attention that real tokens give to pads: nothing."""
    names = _names_of_maps(audited)
    placement = audited.pads_within
    outputs = audited.run(audited.inputs(audited.rows, placement, positions=audited.takes_positions))
    findings = []
    for name in names:
        for row, real in enumerate(placement.mask):
            mass = _attention(audited, outputs, name, placement, row, ~real)
            findings.append(judge(float(mass.max()), TOLERANCES[outputs[name].dtype], output=name, row=row))
    return worst(findings)


@torch.no_grad()
def attention_to_tokens(audited: AuditedModel) -> Finding:
    """Add up the attention that real tokens give to real tokens: as much as in the row alone."""
    names = _names_of_maps(audited)
    placement = audited.pads_within
    outputs = audited.run(audited.inputs(audited.rows, placement, positions=audited.takes_positions))
    findings = []
    for row, real in enumerate(placement.mask):
        single = audited.rows.select([row])
        alone = padded_right(single.lengths)
        outputs_alone = audited.run(audited.inputs(single, alone))
        for name in names:
            expected = _attention(audited, outputs_alone, name, alone, 0, alone.mask[0])
            found = _attention(audited, outputs, name, placement, row, real)
            difference = float((expected - found).abs().max())
            findings.append(judge(difference, TOLERANCES[outputs[name].dtype], output=name, row=row))
    return worst(findings)


def _names_of_maps(audited: AuditedModel) -> list[str]:
    """Find the attention weights among the outputs: those whose last axis counts tokens."""
    names = [name for name, axes in audited.axes.items() if "attentions" in name and axes[-1:] == (-1,)]
    if names:
        return names
    implementation = getattr(audited.model.config, "_attn_implementation", None)
    if implementation in (None, "eager"):
        raise NotApplicableError("returns no attention weights")
    raise NotApplicableError(f'computes no weights under {implementation}: load it with attn_implementation="eager"')


def _attention(
    audited: AuditedModel,
    outputs: Mapping[str, torch.Tensor],
    name: str,
    placement: Placement,
    row: int,
    columns: torch.Tensor,
) -> torch.Tensor:
    """Sum the weights `[heads, Tq, Tk]` of a row over some columns, for the queries that are real tokens."""
    weights = outputs[name][row].cpu().double()
    for axis in audited.axes[name][:-1]:
        weights = weights.index_select(axis, placement.columns[row])
    return weights[..., columns].sum(dim=-1)


_EMBEDDINGS = "gradient of the embeddings"


def gradients_at_pads(audited: AuditedModel) -> Finding:
    """Look at the gradient of the embeddings of pads: nothing."""
    at_embeddings, _ = _gradients(audited, "padding")
    pads = ~audited.pads_within.mask
    if at_embeddings.shape[:2] != pads.shape and "inputs_embeds" in audited.signature.names:
        # It embeds a part of the columns; handed embeddings of all, it says which it uses.
        at_embeddings, _ = _gradients(audited, "padding", hand_embeddings=True)
    if at_embeddings.shape[:2] != pads.shape:
        raise NotApplicableError("its embeddings are not laid out as [batch, tokens, width]")
    if not at_embeddings.isfinite().all():
        return Finding(Verdict.NOT_FINITE, output=_EMBEDDINGS)
    sizes = at_embeddings.abs().amax(dim=-1)  # [B, T]
    tolerance = TOLERANCES[at_embeddings.dtype] * float(sizes.max())
    at_pads = sizes.masked_fill(~pads, 0).amax(dim=-1)  # [B]
    return judge(float(at_pads.max()), tolerance, output=_EMBEDDINGS, row=int(at_pads.argmax()))


def gradients_under_junk(audited: AuditedModel) -> Finding:
    """Compare the gradients of the parameters with those that they have when other ids stand at pads."""
    _, plain = _gradients(audited, "padding")
    _, junk = _gradients(audited, "junk")
    if not plain:
        raise NotApplicableError("no parameter requires a gradient")
    # The gradient of a bias before a softmax is nothing but rounding: only beside the others is it small.
    scale = max(float(gradient.abs().max()) for (gradient,) in plain.values())
    return replace(compare(plain, junk, scale=scale), row=None)


def _gradients(
    audited: AuditedModel, pads: Literal["padding", "junk"], hand_embeddings: bool = False
) -> tuple[torch.Tensor, dict[str, list[torch.Tensor]]]:
    """Differentiate a weighted sum of all that the model says at real tokens.

    Args:
        audited: The model.
        pads: What stands at pads.
        hand_embeddings: Whether the model is given `inputs_embeds` instead of ids.

    Returns:
        The gradient at the embedding of every token `[B, T, E]`, and that of every parameter by name.
    """
    placement = audited.pads_within
    embedded: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        embedded.append(output if output.requires_grad else output.requires_grad_())

    hook = audited.embeddings.register_forward_hook(keep)
    try:
        # cuDNN keeps what a backward pass through a recurrent layer needs in training mode only.
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            inputs = audited.inputs(audited.rows, placement, pads=pads, positions=audited.takes_positions)
            if hand_embeddings:
                inputs["inputs_embeds"] = audited.embeddings(inputs.pop("input_ids"))
            reading = audited.read_outputs(audited.run(inputs), placement)
            # Weights that differ, since the sum over a layer norm has no gradient.
            said = torch.cat([row.cpu().double().flatten() for rows in reading.values() for row in rows])
            loss = (said * torch.arange(len(said)).sin()).sum()
            parameters = {name: value for name, value in audited.model.named_parameters() if value.requires_grad}
            first, *others = torch.autograd.grad(loss, [embedded[0], *parameters.values()], materialize_grads=True)
    finally:
        hook.remove()
    names = [f"gradient of {name}" for name in parameters]
    return first.cpu(), {name: [gradient.cpu()] for name, gradient in zip(names, others, strict=True)}
