"""Deprecated module paths of version 0.1, which forward to the current modules with a warning. Removed in 0.3."""

import importlib
import importlib.abc
import importlib.machinery
import types
import warnings
from typing import Any

MOVED = {
    "hf_maskattn.benchmark.plan": "hf_maskattn.benchmark.measurement",
    "hf_maskattn.data.cldr_dates": "hf_maskattn.data.cldr",
    "hf_maskattn.data.labels": "hf_maskattn.data.columns",
    "hf_maskattn.data.local_files": "hf_maskattn.data.file_loading",
    "hf_maskattn.data.shards": "hf_maskattn.data.streaming",
    "hf_maskattn.data.tokenizer_loading": "hf_maskattn.data.tokenizers",
    "hf_maskattn.data.tokenizer_training": "hf_maskattn.data.tokenizers",
    "hf_maskattn.evaluation": "hf_maskattn.metrics",
    "hf_maskattn.evaluation.generation_evaluation": "hf_maskattn.metrics.text",
    "hf_maskattn.evaluation.masked_tokens": "hf_maskattn.metrics.classification",
    "hf_maskattn.evaluation.multi_label": "hf_maskattn.metrics.classification",
    "hf_maskattn.evaluation.pronunciation": "hf_maskattn.metrics.text",
    "hf_maskattn.evaluation.regression": "hf_maskattn.metrics.classification",
    "hf_maskattn.evaluation.single_label": "hf_maskattn.metrics.classification",
    "hf_maskattn.evaluation.spans": "hf_maskattn.metrics.tagging",
    "hf_maskattn.evaluation.task_evaluation": "hf_maskattn.metrics.task_metrics",
    "hf_maskattn.evaluation.text_match": "hf_maskattn.metrics.text",
    "hf_maskattn.evaluation.translation": "hf_maskattn.metrics.text",
    "hf_maskattn.export": "hf_maskattn.hub",
    "hf_maskattn.export.hub": "hf_maskattn.hub.publish",
    "hf_maskattn.export.model_card": "hf_maskattn.hub.model_card",
    "hf_maskattn.export.onnx_export": "hf_maskattn.onnx.export",
    "hf_maskattn.export.onnx_runtime": "hf_maskattn.onnx.runtime",
    "hf_maskattn.inspection.alignment_maps": "hf_maskattn.inspection.attention_maps",
    "hf_maskattn.inspection.plots": "hf_maskattn.inspection.attention_maps",
    "hf_maskattn.metrics.generation_metrics": "hf_maskattn.metrics.text",
    "hf_maskattn.recipes.declared_fields": "hf_maskattn.recipes.fields",
    "hf_maskattn.recipes.local_files": "hf_maskattn.recipes.recipe",
    "hf_maskattn.registration": "hf_maskattn.auto",
    "hf_maskattn.training.evaluate": "hf_maskattn.inference.evaluate",
    "hf_maskattn.training.export": "hf_maskattn.inference.export",
    "hf_maskattn.training.launch": "hf_maskattn.training.train",
    "hf_maskattn.training.model_building": "hf_maskattn.training.assembly",
    "hf_maskattn.training.predict": "hf_maskattn.inference.predict",
    "hf_maskattn.training.publishing": "hf_maskattn.training.publication",
    "hf_maskattn.training.reproducible_trainer": "hf_maskattn.training.trainer",
    "hf_maskattn.training.run_card": "hf_maskattn.training.results",
    "hf_maskattn.training.run_report": "hf_maskattn.training.results",
    "hf_maskattn.training.tagging": "hf_maskattn.training.task_encoders",
}
"""The current module of each deprecated one."""


class DeprecatedModuleLoader(importlib.abc.Loader):
    """Loads a module of `MOVED`: warns, and forwards its attributes to the current module."""

    def exec_module(self, module: types.ModuleType) -> None:
        """Fill a module that was just created."""
        new_name = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} is deprecated. Use {new_name}.", FutureWarning, stacklevel=2)

        def forward(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return getattr(importlib.import_module(new_name), name)

        module.__getattr__ = forward  # type: ignore[method-assign]


def find_deprecated_module(name: str) -> importlib.machinery.ModuleSpec | None:
    """Find the spec of a module of `MOVED` by its full name, None if there was no such module."""
    if name not in MOVED:
        return None
    return importlib.machinery.ModuleSpec(name, DeprecatedModuleLoader(), is_package=name.count(".") == 1)
