"""Explanations by removal: what the outputs would be without a token, word or span."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_maskattn.auto import FAMILIES
from hf_maskattn.inspection.audit import audit_holes
from hf_maskattn.inspection.audit_report import Verdict
from hf_maskattn.inspection.contributions import Explained
from hf_maskattn.inspection.explained_outputs import ExplainedOutputs, Scores, class_outputs, generate_outputs, tag_outputs
from hf_maskattn.inspection.explained_texts import ExplainedText, stack_texts
from hf_maskattn.tasks import task_of


def check_removal(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Reject a model in which a token that is masked out has an effect.

    Raises:
        ValueError: If a model that is not of this package fails the audit on holes.
    """
    if model.config.model_type in FAMILIES:  # as the tests of this package verify
        return
    finding = audit_holes(model, tokenizer)
    if finding.verdict not in (Verdict.EXACT, Verdict.WITHIN_TOLERANCE):
        reason = ": ".join(part for part in (str(finding.verdict), finding.remarks) if part)
        raise ValueError(
            f'method="removal" needs a model in which padding between tokens has no effect, got {type(model).__name__} '
            f"(audit on holes: {reason}). `hf-maskattn audit` shows all findings."
        )


def compute_removal(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[ExplainedText],
    columns: Sequence[int] | None = None,
) -> Explained:
    """Compute the outputs of texts minus those without each unit, all masks of a text in one batch.

    Args:
        model: A classifier, regression model, tagger or encoder-decoder in eval mode that `check_removal` accepts.
        tokenizer: Its tokenizer.
        rows: The texts.
        columns: The classes of a sequence classifier, or units of a tagger, to explain; None selects all.

    Returns:
        Scores of each text. The base is the output without any of the units.
    """
    return [_remove_units(model, tokenizer, row, columns) for row in rows]


def find_outputs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    row: ExplainedText,
    columns: Sequence[int] | None = None,
) -> ExplainedOutputs:
    """Find the outputs to explain: the classes, the tags that are predicted for a text, or the text that is generated."""
    task = task_of([type(model).__name__])
    if task == "text-classification":
        return class_outputs(model.config, columns)
    inputs = stack_texts([row], model.device)
    if task == "token-classification":
        return tag_outputs(model.config, [row], model(**inputs).logits.cpu(), columns)[0]
    return generate_outputs(model, tokenizer, inputs)


def _remove_units(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, row: ExplainedText, columns: Sequence[int] | None
) -> tuple[ExplainedOutputs, Scores]:
    units = range(len(row.columns))
    masks = row.mask_without([[], *([unit] for unit in units), units])  # [units + 2, n]
    outputs = find_outputs(model, tokenizer, row, columns)
    logits = outputs.run_masks(model, row, masks)  # [units + 2, columns]
    scores = logits[0] - logits[1:-1]
    base = logits[-1]
    if outputs.positions is not None and outputs.decoder_input_ids is None:
        # A token that is removed has no tag, and a CRF may forbid a tag without the token before it.
        scores[~masks[1:-1][:, outputs.positions] | scores.isinf()] = float("nan")
        base = torch.full_like(base, float("nan"))
    return outputs, Scores(scores, base, logits[0])
