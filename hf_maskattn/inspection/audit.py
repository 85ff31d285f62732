"""Does padding leak into what a model says? An audit of any text model of transformers."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hf_maskattn.auto import register
from hf_maskattn.inspection import audit_checks
from hf_maskattn.inspection.audit_checks import NotApplicableError
from hf_maskattn.inspection.audit_forward import AuditedModel, signature_of
from hf_maskattn.inspection.audit_report import NAN_UNDER_THE_MASK, AuditReport, Finding, Verdict
from hf_maskattn.inspection.audit_rows import TokenRows, rows_for
from hf_maskattn.loading import has_file, load_config, load_verified_model, to_one_line


def load_model(name_or_folder: str | Path, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """Load a model as the class that its configuration names, as the bare model if it names none that is known.

    Args:
        name_or_folder: Folder that `save_pretrained` wrote, or a name on the Hub.
        trust_remote_code: Whether to run code that lies beside the weights.

    Returns:
        The model.

    Raises:
        FileNotFoundError: If there is no such folder or name, or the Hub cannot be reached.
        ValueError: If it is no model of transformers, would run code that is not trusted, or its weights are no safetensors
            or damaged.
    """
    config = load_config(name_or_folder, trust_remote_code=trust_remote_code)
    # Of the implementations of attention only eager, which is what is loaded, returns the weights that two checks look at.
    return load_verified_model(_class_for(config), name_or_folder, config, trust_remote_code=trust_remote_code)


def load_tokenizer_if_any(name_or_folder: str | Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase | None:
    """Load the tokenizer beside a model; None if there is none.

    Args:
        name_or_folder: As in `load_model`.
        trust_remote_code: As in `load_model`.

    Returns:
        The tokenizer or None.

    Raises:
        OSError: If the Hub does not say whether there is one.
        ValueError: If there is one that cannot be loaded.
    """
    register()
    # Where there are no files, AutoTokenizer makes up a tokenizer that knows no word.
    if not has_file(name_or_folder, "tokenizer_config.json"):
        return None
    try:
        return AutoTokenizer.from_pretrained(name_or_folder, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise ValueError(f"the tokenizer of {name_or_folder} cannot be loaded: {to_one_line(error)}.") from error


def _class_for(config: PreTrainedConfig) -> Any:
    """Find what loads the class that a configuration names: an Auto class for code that lies outside of transformers."""
    name = next(iter(config.architectures or ()), "")
    for auto_name, path in (getattr(config, "auto_map", None) or {}).items():
        if str(path).endswith(f".{name}") and hasattr(transformers, auto_name):
            return getattr(transformers, auto_name)
    return getattr(transformers, name, AutoModel)


logger = logging.getLogger(__name__)

SLOW_START = 10.0
"""Seconds after which a user is told how to make an audit shorter."""

Check = Callable[[AuditedModel], Finding]

CHECKS: dict[str, Check] = {
    "batch against alone": audit_checks.batch_against_alone,
    "extra padding right": audit_checks.extra_padding_right,
    "extra padding left": audit_checks.extra_padding_left,
    "left, no position ids": audit_checks.extra_padding_left_without_positions,
    "junk under the mask": audit_checks.junk_under_the_mask,
    NAN_UNDER_THE_MASK: audit_checks.nan_under_the_mask,
    "holes": audit_checks.holes,
    "empty row": audit_checks.empty_row,
    "permuted rows": audit_checks.permuted_rows,
    "attention to pads": audit_checks.attention_to_pads,
    "attention to tokens": audit_checks.attention_to_tokens,
}
GRADIENT_CHECKS: dict[str, Check] = {
    "gradients at pads": audit_checks.gradients_at_pads,
    "gradients under junk": audit_checks.gradients_under_junk,
}


def audit(
    model: PreTrainedModel | str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    batch: Sequence[str] | Mapping[str, torch.Tensor] | None = None,
    *,
    gradients: bool = False,
    max_length: int = 32,
    seed: int = 0,
    trust_remote_code: bool = False,
) -> AuditReport:
    """Find out whether padding changes what a model says, where, and how much.

    The model runs in eval mode, on its device and in its dtype, over a few rows that are padded in many ways; what it says of
    real tokens, and of rows as a whole, must not change. It is left as it was.

    Args:
        model: Any text model (encoder, decoder, encoder-decoder, with any head), the folder of one, or its name on the Hub.
        tokenizer: Its tokenizer; that beside a folder or name is found.
        batch: Texts, or a padded batch of tensors as a tokenizer gives it. Without one, a few English sentences; without a
            tokenizer either, random ids.
        gradients: Whether to look at gradients, too.
        max_length: Most tokens of a row.
        seed: Of the random ids.
        trust_remote_code: Whether to run code that lies beside the weights of a folder or name.

    Returns:
        What each check found; `passed` is False if any found a leak, or made a value that is not finite from finite inputs.

    Raises:
        FileNotFoundError: If there is no such model.
        OSError: If the Hub does not say whether a tokenizer lies beside it.
        ValueError: If the model does not read text, the inputs do not fit it, or memory runs out.
    """
    if isinstance(model, (str, Path)):
        name_or_folder = model
        model = load_model(name_or_folder, trust_remote_code=trust_remote_code)
        tokenizer = tokenizer or load_tokenizer_if_any(name_or_folder, trust_remote_code=trust_remote_code)
    name = type(model).__name__
    signature = signature_of(model)
    if "input_ids" not in signature.names:
        raise ValueError(f"{name} reads {', '.join(sorted(signature.names))}, no input_ids: audit is for models of text.")
    rows = rows_for(model, signature.names, tokenizer, batch, max_length, seed)
    checks = CHECKS | (GRADIENT_CHECKS if gradients else {})
    with _in_eval_mode(model):
        started = time.perf_counter()
        try:
            audited = AuditedModel(model, signature, rows, seed)
        except Exception as error:
            _stop_if_memory_ran_out(error, rows)
            raise ValueError(f"{name} cannot read a plain padded batch ({rows.description}): {_in_one_line(error)}") from error
        _say_if_slow(time.perf_counter() - started, rows)
        findings = {check: _run(function, audited) for check, function in checks.items()}
    notes = []
    if "attention_mask" not in signature.names:
        notes.append(f"{name} takes no attention_mask: nothing tells it what is padding.")
    if audited.left_out:
        notes.append(f"Not compared, since they have no row for each row of the batch: {', '.join(audited.left_out)}.")
    dtype = str(model.dtype).removeprefix("torch.")
    return AuditReport(name, dtype, str(model.device), rows.description, findings, tuple(notes))


def _run(check: Check, audited: AuditedModel) -> Finding:
    try:
        finding = check(audited)
    except NotApplicableError as error:
        return Finding(Verdict.NOT_APPLICABLE, reason=str(error))
    except Exception as error:
        _stop_if_memory_ran_out(error, audited.rows)
        return Finding(Verdict.REFUSED, reason=_in_one_line(error))
    if finding.verdict is Verdict.LEAKS and "attention_mask" not in audited.signature.names:
        return replace(finding, reason="takes no attention_mask")
    return finding


def _say_if_slow(seconds: float, rows: TokenRows) -> None:
    if seconds > SLOW_START:
        logger.warning(
            f"Reading a few rows ({rows.description}) took {seconds:.0f} s and the audit does it dozens of times: give a "
            "smaller max_length (--max-length), or fewer texts."
        )


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@contextmanager
def _in_eval_mode(model: PreTrainedModel) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _stop_if_memory_ran_out(error: Exception, rows: TokenRows) -> None:
    # On the CPU, torch says so with a plain RuntimeError.
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error):
        raise ValueError(
            f"memory ran out ({rows.description}): give a smaller max_length (--max-length), or fewer texts."
        ) from error
