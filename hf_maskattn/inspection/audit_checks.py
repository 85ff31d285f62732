"""The checks of an audit: each changes what must not matter, and compares.

A check takes the audited model and returns what it found; it raises `NotApplicableError` if it has no meaning for the model.
"""

from dataclasses import replace

import torch

from hf_maskattn.inspection.audit_comparison import compare, worst
from hf_maskattn.inspection.audit_forward import AuditedModel
from hf_maskattn.inspection.audit_placement import EXTRA_PADS, Placement, padded_left, padded_right, scattered
from hf_maskattn.inspection.audit_report import FAILURES, Finding, Verdict

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
