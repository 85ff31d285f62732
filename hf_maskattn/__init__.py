"""Masked recurrent attention models for Hugging Face Transformers: a padded token does not exist.

Importing this package registers its models, so that `AutoModel.from_pretrained` and `pipeline` know them.
"""

import sys
from pathlib import Path

__version__ = "0.1.0"

# The command `hf-maskattn` imports this package before anything else and must answer `--help` without waiting for torch;
# its verbs import what they need.
if not sys.argv or Path(sys.argv[0]).name not in ("hf-maskattn", "hf-maskattn.exe"):
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
    from hf_maskattn.registration import register

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
