"""Recurrent models with masked Bahdanau attention for Hugging Face Transformers, in which padding has no effect.

Importing this package makes its models known to `AutoModel.from_pretrained` and `pipeline`. What it exports is imported on
first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf_maskattn.auto import forward_deprecated_modules, register_on_first_use

if TYPE_CHECKING:
    from hf_maskattn.data.tokenizers import train_tokenizer
    from hf_maskattn.embeddings.loading import load_embeddings
    from hf_maskattn.hub.publish import publish
    from hf_maskattn.inference.evaluate import evaluate
    from hf_maskattn.inference.export import export_onnx
    from hf_maskattn.inference.predict import predict
    from hf_maskattn.inspection.attention_maps import alignment_maps, attention_maps
    from hf_maskattn.inspection.audit import audit
    from hf_maskattn.inspection.audit_report import AuditReport
    from hf_maskattn.inspection.explain import explain
    from hf_maskattn.inspection.explanations import Explanation
    from hf_maskattn.model.configuration_maskattn import MaskAttnConfig
    from hf_maskattn.model.configuration_rnnsearch import RNNSearchConfig
    from hf_maskattn.model.modeling_joint import MaskAttnForJointClassification
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
    from hf_maskattn.recipes.recipe import load_recipe
    from hf_maskattn.training.distillation import DistillationArguments, DistillationTrainer
    from hf_maskattn.training.train import train
    from hf_maskattn.training.tuning import tune

__version__ = "0.2.0"

_MODULES = {
    "AuditReport": "inspection.audit_report",
    "DistillationArguments": "training.distillation",
    "DistillationTrainer": "training.distillation",
    "Explanation": "inspection.explanations",
    "MaskAttnConfig": "model.configuration_maskattn",
    "MaskAttnForJointClassification": "model.modeling_joint",
    "MaskAttnForMaskedLM": "model.modeling_maskattn",
    "MaskAttnForSequenceClassification": "model.modeling_maskattn",
    "MaskAttnForTokenClassification": "model.modeling_maskattn",
    "MaskAttnModel": "model.modeling_maskattn",
    "MaskAttnPreTrainedModel": "model.modeling_maskattn",
    "RNNSearchConfig": "model.configuration_rnnsearch",
    "RNNSearchForConditionalGeneration": "model.modeling_rnnsearch",
    "RNNSearchModel": "model.modeling_rnnsearch",
    "RNNSearchPreTrainedModel": "model.modeling_rnnsearch",
    "alignment_maps": "inspection.attention_maps",
    "attention_maps": "inspection.attention_maps",
    "audit": "inspection.audit",
    "evaluate": "inference.evaluate",
    "explain": "inspection.explain",
    "export_onnx": "inference.export",
    "load_embeddings": "embeddings.loading",
    "load_recipe": "recipes.recipe",
    "predict": "inference.predict",
    "publish": "hub.publish",
    "train": "training.train",
    "train_tokenizer": "data.tokenizers",
    "tune": "training.tuning",
}
"""Module of each exported name."""

__all__ = [*_MODULES]


forward_deprecated_modules()
register_on_first_use()


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
