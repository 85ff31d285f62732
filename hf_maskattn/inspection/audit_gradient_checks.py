"""The checks of an audit on gradients: what an optimizer would learn from a pad."""

from dataclasses import replace
from typing import Literal

import torch

from hf_maskattn.inspection.audit_checks import NotApplicableError
from hf_maskattn.inspection.audit_comparison import TOLERANCES, compare, judge
from hf_maskattn.inspection.audit_forward import AuditedModel
from hf_maskattn.inspection.audit_report import Finding, Verdict

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
