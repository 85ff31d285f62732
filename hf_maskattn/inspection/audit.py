"""Check whether padding changes the outputs of a text model of transformers."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hf_maskattn.auto import FAMILIES, load_family, register
from hf_maskattn.inspection.audit_checks import CHECKS, GRADIENT_CHECKS, Check, NotApplicableError
from hf_maskattn.inspection.audit_forward import AuditedModel, read_argument_names
from hf_maskattn.inspection.audit_report import AuditReport, Finding, Verdict
from hf_maskattn.inspection.audit_rows import TokenRows, build_rows
from hf_maskattn.loading import has_file, load_config, load_verified_model, to_one_line

logger = logging.getLogger(__name__)

SLOW_FORWARD_SECONDS = 10.0
"""Duration of the first forward passes that is reported with a way to shorten the audit."""

_HOLES_LENGTH = 16


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
    """Check whether padding changes the outputs of a model, where, and by how much.

    The model runs in eval mode, on its device and in its dtype, on a few rows that are padded in several ways. Outputs at
    tokens, and outputs of whole rows, must not change. The training mode of the model is restored.

    Args:
        model: Any text model (encoder, decoder, encoder-decoder, with any head), the folder of one, or its name on the Hub.
        tokenizer: Its tokenizer; None loads the tokenizer of a folder or name, if there is one.
        batch: Texts, or a padded batch of tensors as a tokenizer returns it. None selects a few English sentences, or random
            ids without a tokenizer.
        gradients: Whether to check gradients, too.
        max_length: Largest number of tokens of a row.
        seed: Seed of random ids.
        trust_remote_code: Whether to run code from the folder or repository of the model.

    Returns:
        The finding of each check. `passed` is False if any check found a leak, or values that are not finite for finite inputs.

    Raises:
        FileNotFoundError: If the model does not exist.
        OSError: If the Hub cannot be asked for a tokenizer.
        ValueError: If the model does not read text, the inputs do not fit it, or memory is exhausted.
    """
    if isinstance(model, (str, Path)):
        name_or_folder = model
        model = load_model(name_or_folder, trust_remote_code=trust_remote_code)
        tokenizer = tokenizer or load_tokenizer_if_any(name_or_folder, trust_remote_code=trust_remote_code)
    name = type(model).__name__
    names = read_argument_names(model)
    if "input_ids" not in names:
        raise ValueError(f"`model` must be a text model with `input_ids`, got {name} with {', '.join(sorted(names))}.")
    rows = build_rows(model, names, tokenizer, batch, max_length, seed)
    checks = CHECKS | (GRADIENT_CHECKS if gradients else {})
    with eval_mode(model):
        started = time.perf_counter()
        try:
            audited = AuditedModel(model, rows, seed)
        except Exception as error:
            _raise_if_out_of_memory(error, rows)
            raise ValueError(f"{name} fails on a right-padded batch ({rows.description}): {_describe(error)}") from error
        seconds = time.perf_counter() - started
        if seconds > SLOW_FORWARD_SECONDS:
            logger.warning(
                f"Two forward passes ({rows.description}) took {seconds:.0f} s, and an audit runs dozens of them. Reduce "
                "max_length (--max-length), or pass fewer texts."
            )
        findings = {check: _run_check(function, audited) for check, function in checks.items()}
    notes = []
    if "attention_mask" not in names:
        notes.append(f"{name} takes no attention_mask, so it cannot distinguish tokens from padding.")
    if audited.excluded_outputs:
        notes.append(f"Not compared, since they have no entry for each row: {', '.join(audited.excluded_outputs)}.")
    dtype = str(model.dtype).removeprefix("torch.")
    return AuditReport(name, dtype, str(model.device), rows.description, findings, tuple(notes))


@torch.no_grad()
def audit_holes(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Finding:
    """Check only whether padding between the tokens changes the outputs of a model, which is in eval mode."""
    try:
        rows = build_rows(model, read_argument_names(model), tokenizer, None, _HOLES_LENGTH, seed=0)
        audited = AuditedModel(model, rows, seed=0)
    except Exception as error:
        return Finding(Verdict.REFUSED, reason=_describe(error))
    return _run_check(CHECKS["holes"], audited)


def load_model(name_or_folder: str | Path, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """Load a model as the class in its configuration, or as the bare model if that class is unknown.

    Args:
        name_or_folder: Folder of `save_pretrained`, or a name on the Hub.
        trust_remote_code: Whether to run code from the folder or repository of the model.

    Raises:
        FileNotFoundError: If the folder or name does not exist, or the Hub cannot be reached.
        ValueError: If it is not a model of transformers, needs code that is not trusted, or its weights are damaged or not
            safetensors.
    """
    config = load_config(name_or_folder, trust_remote_code=trust_remote_code)
    # Models are loaded with eager attention, the only implementation that returns the weights that two checks need.
    return load_verified_model(_select_class(config), name_or_folder, config, trust_remote_code=trust_remote_code)


def load_tokenizer_if_any(name_or_folder: str | Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase | None:
    """Load the tokenizer of a model, a folder or a name on the Hub; None if there is none.

    Raises:
        OSError: If the Hub cannot be asked for a tokenizer.
        ValueError: If the tokenizer cannot be loaded.
    """
    register()
    # Without files, AutoTokenizer would create a tokenizer that has only special tokens.
    if not has_file(name_or_folder, "tokenizer_config.json"):
        return None
    try:
        return AutoTokenizer.from_pretrained(name_or_folder, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise ValueError(f"The tokenizer of {name_or_folder} cannot be loaded: {to_one_line(error)}.") from error


def _select_class(config: PreTrainedConfig) -> Any:
    """Select the class to load a model with: an Auto class for code outside of transformers."""
    name = next(iter(config.architectures or ()), "")
    for auto_name, path in (getattr(config, "auto_map", None) or {}).items():
        if str(path).endswith(f".{name}") and hasattr(transformers, auto_name):
            return getattr(transformers, auto_name)
    if config.model_type in FAMILIES:  # a head without an Auto class
        return getattr(load_family(config.model_type, name)[1], name, AutoModel)
    return getattr(transformers, name, AutoModel)


def _run_check(check: Check, audited: AuditedModel) -> Finding:
    try:
        finding = check(audited)
    except NotApplicableError as error:
        return Finding(Verdict.NOT_APPLICABLE, reason=str(error))
    except Exception as error:
        _raise_if_out_of_memory(error, audited.rows)
        return Finding(Verdict.REFUSED, reason=_describe(error))
    if finding.verdict is Verdict.LEAKS and "attention_mask" not in audited.argument_names:
        return replace(finding, reason="the model takes no attention_mask")
    return finding


def _raise_if_out_of_memory(error: Exception, rows: TokenRows) -> None:
    # On the CPU, torch raises a plain RuntimeError.
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error):
        raise ValueError(
            f"The audit ran out of memory ({rows.description}). Reduce max_length (--max-length), or pass fewer texts."
        ) from error


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@contextmanager
def eval_mode(model: PreTrainedModel) -> Iterator[None]:
    """Put a model in eval mode, and restore the mode of each of its modules."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
