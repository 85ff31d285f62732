"""Masked recurrent attention models for Hugging Face Transformers: a padded token does not exist.

Importing this package registers its models, so that `AutoModel.from_pretrained` and `pipeline` know them.
"""

import sys
from pathlib import Path

from hf_maskattn.deprecated_modules import install

__version__ = "0.1.0"

install()


def _is_imported_by_its_command() -> bool:
    """Tell whether this process runs `hf-maskattn` or `python -m hf_maskattn.cli`.

    The command imports this package before anything else, and must answer `--help` and mistakes in a recipe without waiting
    for torch; its verbs import what they need. While Python looks for the module of `-m`, `sys.argv` begins with "-m", and
    `sys.orig_argv` has the name of the module in that place.
    """
    if not sys.argv:
        return False
    if sys.argv[0] == "-m":
        return sys.orig_argv[-len(sys.argv)].removeprefix("-m") in ("hf_maskattn.cli", "hf_maskattn.cli.__main__")
    return Path(sys.argv[0]).name in ("hf-maskattn", "hf-maskattn.exe")


if not _is_imported_by_its_command():
    from hf_maskattn.auto import register
    from hf_maskattn.inspection.audit import AuditReport, audit
    from hf_maskattn.model.configuration_maskattn import MaskAttnConfig
    from hf_maskattn.model.configuration_rnnsearch import RNNSearchConfig
    from hf_maskattn.model.modeling_maskattn import (
        MaskAttnForMaskedLM,
        MaskAttnForSequenceClassification,
        MaskAttnForTokenClassification,
        MaskAttnModel,
        MaskAttnPreTrainedModel,
    )
    from hf_maskattn.model.modeling_rnnsearch import (
        RNNSearchForConditionalGeneration,
        RNNSearchModel,
        RNNSearchPreTrainedModel,
    )

    __all__ = [
        "AuditReport",
        "MaskAttnConfig",
        "MaskAttnForMaskedLM",
        "MaskAttnForSequenceClassification",
        "MaskAttnForTokenClassification",
        "MaskAttnModel",
        "MaskAttnPreTrainedModel",
        "RNNSearchConfig",
        "RNNSearchForConditionalGeneration",
        "RNNSearchModel",
        "RNNSearchPreTrainedModel",
        "audit",
    ]

    register()
