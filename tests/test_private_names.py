"""The private names of other packages that this package uses exist in the installed versions, and no other one is used."""

import ast
import inspect
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import hf_maskattn

CHECKED_WITH = {
    "accelerate": "1.10.1 and 1.15",
    "huggingface_hub": "1.31 and 2.4",
    "torch": "2.8, 2.13, 2.14 and 2.15",
    "transformers": "5.19, 5.23 and 5.24",
}
"""The versions with which the use of the names was checked."""

NAMES = {
    "accelerate.data_loader:DataLoaderDispatcher": ["_non_blocking", "_drop_last"],
    "huggingface_hub": ["_CACHED_NO_EXIST"],
    "torch": ["_assert_async", "_softmax_backward_data"],
    "torch.ops:mkldnn": ["_is_mkldnn_bf16_supported", "_is_mkldnn_fp16_supported"],
    "transformers:AutoModel": ["_model_mapping"],
    "transformers:GenerationMixin": [
        "_get_logits_processor",
        "_prepare_decoder_input_ids_for_generation",
        "_prepare_generation_config",
        "_validate_generation_mode",
    ],
    "transformers:Pipeline": ["_sanitize_parameters"],
    "transformers:PreTrainedConfig": ["_attn_implementation"],
    "transformers:PreTrainedModel": ["_check_and_adjust_attn_implementation", "_from_config", "_init_weights"],
    "transformers:Trainer": [
        "_get_dataloader",
        "_get_eval_sampler",
        "_determine_best_metric",
        "_get_output_dir",
        "_get_train_sampler",
        "_issue_warnings_after_load",
        "_load_best_model",
        "_push_from_checkpoint",
        "_run_epoch",
        "_save_checkpoint",
        "_set_signature_columns_if_needed",
    ],
}
"""Names by where they are defined, as module or module:attribute."""

IN_SOURCE = {
    "transformers:Seq2SeqTrainer": ["_gen_kwargs"],
    "transformers:Trainer": ["_eval_dataloaders", "_train_batch_size"],
    "transformers.models.auto.auto_factory:_LazyAutoMapping": ["_extra_content"],
    "transformers.utils.hub:cached_files": ["_raise_exceptions_for_missing_entries"],
}
"""Attributes of instances and arguments, which are found in the source only."""

PUBLIC = {"_asdict", "_replace"}
"""Methods of named tuples."""


def load(path):
    module, _, attribute = path.partition(":")
    try:
        return getattr(import_module(module), attribute) if attribute else import_module(module)
    except ModuleNotFoundError:  # torch.ops is an object
        parent, _, name = module.rpartition(".")
        return getattr(getattr(import_module(parent), name), attribute)


def explain(path, name):
    package = path.partition(".")[0].partition(":")[0]
    return f"{path} has no {name} in {package} {version(package)}. Its use was checked with {CHECKED_WITH[package]}."


def listed(names):
    return [(path, name) for path in names for name in names[path]]


@pytest.mark.parametrize(("path", "name"), listed(NAMES))
def test_private_name_exists(path, name):
    owner = load(path)
    exists = hasattr(owner, name) or (inspect.isclass(owner) and name in inspect.getsource(owner))
    assert exists, explain(path, name)


@pytest.mark.parametrize(("path", "name"), listed(IN_SOURCE))
def test_private_name_is_in_source(path, name):
    assert name in inspect.getsource(load(path)), explain(path, name)


def private_names(tree):
    """Yield the names of attributes, imports and keyword arguments in a module, and whether they are certainly foreign."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            is_super = isinstance(node.value, ast.Call) and getattr(node.value.func, "id", None) == "super"
            yield node.attr, is_super
        elif isinstance(node, ast.Call) and getattr(node.func, "id", None) in ("getattr", "hasattr"):
            if isinstance(node.args[1], ast.Constant):
                yield node.args[1].value, False
        elif isinstance(node, ast.ImportFrom):
            is_foreign = node.level == 0 and not (node.module or "").startswith("hf_maskattn")
            yield from ((alias.name, is_foreign) for alias in node.names)
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg, False


def defined_names(tree):
    """Yield the names that a module defines itself, also as attributes of its objects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and getattr(node.value, "id", "") == "self":
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def test_listed_private_names_are_all_that_are_used():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in Path(hf_maskattn.__file__).parent.rglob("*.py")]
    own = {name for tree in trees for name in defined_names(tree)}
    used = {
        name
        for tree in trees
        for name, is_foreign in private_names(tree)
        if name.startswith("_") and not name.startswith("__") and (is_foreign or name not in own)
    }
    names = {name for _, name in [*listed(NAMES), *listed(IN_SOURCE)]}
    assert used - PUBLIC - names == set()
    unused = names - own - {name for tree in trees for name, _ in private_names(tree)}
    assert unused == set()
