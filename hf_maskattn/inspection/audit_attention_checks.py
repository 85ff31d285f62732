"""The checks of an audit on the attention weights that a model returns."""

from collections.abc import Mapping

import torch

from hf_maskattn.inspection.audit_checks import NotApplicableError
from hf_maskattn.inspection.audit_comparison import TOLERANCES, judge, worst
from hf_maskattn.inspection.audit_forward import AuditedModel
from hf_maskattn.inspection.audit_placement import Placement, padded_right
from hf_maskattn.inspection.audit_report import Finding


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
