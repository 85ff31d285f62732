"""Registration with the Auto classes of transformers, so that they load these models, and saved folders carry their code."""

import importlib.abc
import importlib.machinery
import sys
import threading
from types import ModuleType
from typing import Any

FAMILIES = {
    "maskattn": ("configuration_maskattn", "modeling_maskattn", "modeling_joint"),
    "maskattn_rnnsearch": ("configuration_rnnsearch", "modeling_rnnsearch"),
}
"""File of the configuration and files of the models in `hf_maskattn.model`, for each `model_type` of a `config.json`."""

_CONFIGURATION_AUTO = "transformers.models.auto.configuration_auto"

_lock = threading.RLock()
_has_started = False


def load_family(model_type: str, architecture: str = "") -> tuple[ModuleType, ModuleType]:
    """Import the module of the configuration and the module of the models of a model type.

    Args:
        model_type: "maskattn" or "maskattn_rnnsearch".
        architecture: Class of the model, which selects the module.

    Returns:
        Both modules. The second has the classes of the Auto classes if the architecture is not given or unknown.
    """
    configurations, *models = (importlib.import_module(f"hf_maskattn.model.{name}") for name in FAMILIES[model_type])
    return configurations, next((module for module in models if hasattr(module, architecture)), models[0])


def register() -> None:
    """Register every public class with its Auto class, for loading and for saving its code with the weights.

    The class of the tokenizers is registered for loading only: without it, `AutoTokenizer` uses the class of transformers.
    A second call does nothing.

    Source: `AUTO_MAP` of each configuration file, which a saved `config.json` contains as `auto_map`.
    """
    global _has_started
    with _lock:
        if _has_started:  # done, or called again by what it imports
            return
        _has_started = True
        try:
            _register()
        except BaseException:
            _has_started = False
            raise


def _register() -> None:
    import transformers

    from hf_maskattn.tokenization import MaskAttnTokenizer

    for model_type in FAMILIES:
        configurations, models = load_family(model_type)
        for auto_name, path in configurations.AUTO_MAP.items():
            auto_class, class_name = getattr(transformers, auto_name), path.rpartition(".")[2]
            if auto_name == "AutoConfig":
                config_class = getattr(configurations, class_name)
                auto_class.register(model_type, config_class)
                config_class.register_for_auto_class(auto_name)
                transformers.AutoTokenizer.register(config_class, MaskAttnTokenizer, exist_ok=True)
            else:
                model_class = getattr(models, class_name)
                auto_class.register(model_class.config_class, model_class)
                model_class.register_for_auto_class(auto_name)


class _DeferredEntries(dict):
    """The registered entries of `CONFIG_MAPPING`; reading them registers the models of this package first."""

    def __contains__(self, key: object) -> bool:
        if key in FAMILIES:
            register()
        return super().__contains__(key)

    def __getitem__(self, key: str) -> Any:
        if key in FAMILIES:
            register()
        return super().__getitem__(key)

    def keys(self) -> Any:
        register()
        return super().keys()

    def values(self) -> Any:
        register()
        return super().values()

    def items(self) -> Any:
        register()
        return super().items()


def _defer(configuration_auto: ModuleType) -> None:
    mapping = configuration_auto.CONFIG_MAPPING
    mapping._extra_content = _DeferredEntries(mapping._extra_content)


class _AutoClassFinder(importlib.abc.MetaPathFinder):
    """Finds the module with `CONFIG_MAPPING`, and defers the registration when it has been executed."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != _CONFIGURATION_AUTO:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _defer(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def register_on_first_use() -> None:
    """Register the models when transformers first looks for one of them.

    Importing this package then takes 0.05 s. Registering at once would import torch and the models: 6 s on two cores.

    Every Auto class and pipeline looks up the `model_type` of a configuration in `CONFIG_MAPPING` first. Its entries are
    replaced by ones that call `register`, now or when transformers imports the module that defines it. Importing any module
    of `hf_maskattn.model` registers the models as well.
    """
    configuration_auto = sys.modules.get(_CONFIGURATION_AUTO)
    if configuration_auto is not None:
        _defer(configuration_auto)
    else:
        sys.meta_path.insert(0, _AutoClassFinder())


class _DeprecatedModuleFinder(importlib.abc.MetaPathFinder):
    """Finds modules of this package at their former paths, after all other finders."""

    def find_spec(self, fullname, path=None, target=None):
        if not fullname.startswith("hf_maskattn."):
            return None
        from hf_maskattn.deprecated_modules import find_deprecated_module

        return find_deprecated_module(fullname)


def forward_deprecated_modules() -> None:
    """Find modules at their former paths; see `hf_maskattn.deprecated_modules`."""
    if not any(type(finder).__name__ == _DeprecatedModuleFinder.__name__ for finder in sys.meta_path):  # not a reload
        sys.meta_path.append(_DeprecatedModuleFinder())


def find_model_class(auto_class: Any, config: Any) -> Any:
    """Return the class that an Auto class has for a configuration. A model class returns itself.

    For a configuration that the Auto class does not know, the Auto class is returned.
    """
    return getattr(auto_class, "_model_mapping", {}).get(type(config), auto_class)
