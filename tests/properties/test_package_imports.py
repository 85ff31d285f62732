"""A module imports only from packages below its own, and files that travel with weights only what is installed everywhere."""

import ast
import sys
from pathlib import Path

import pytest

import hf_maskattn
from hf_maskattn.model.configuration_rnnsearch import AUTO_MAP as ENCODER_DECODER
from hf_maskattn.model.modeling_joint import AUTO_MAP as ENCODER

ROOT = Path(hf_maskattn.__file__).parent
MODEL_FILES = sorted(path for path in (ROOT / "model").glob("*.py") if path.name != "__init__.py")

LEVELS = {
    "cli": 10,
    "inference": 9,  # evaluation builds a Trainer
    "training": 8,
    "benchmark": 7,  # measures exported files as well
    "onnx": 6,  # exports contributions as well
    "hub": 5,
    "inspection": 5,
    "recipes": 4,  # the fields of a recipe are defined with the data and the metrics that they select
    "embeddings": 4,
    "metrics": 3,
    "data": 2,  # tags are scored as they are encoded
    "checkpoints": 3,
    "loading": 2,
    "tasks": 1,
    "auto": 1,
    "model": 0,
    "tokenization": 0,
    "deprecated_modules": 0,
}
"""Packages and modules; each imports only from lower levels and from itself."""

MODEL_ORDER = [
    "remote_code",
    "configuration_maskattn",
    "configuration_rnnsearch",
    "masking",
    "packing",
    "recurrent_autograd",
    "recurrent_kernel",
    "recurrence",
    "attention_functions",
    "attention",
    "losses",
    "lattice",
    "viterbi",
    "crf",
    "modeling_recurrent",
    "modeling_maskattn",
    "modeling_joint",
    "attentive_recurrence",
    "decoder_layers",
    "generation",
    "decoder",
    "modeling_rnnsearch",
]
"""Files of `model/`, in the order of its README; each imports only from files before it."""

ONLY_IMPORTED_IN = {
    "babel": "data/cldr.py",
    "jiwer": "metrics/text.py",
    "sacrebleu": "metrics/text.py",
    "seqeval": "metrics/tagging.py",
    "matplotlib": ("inspection/attention_maps.py", "training/error_analysis.py"),
    "captum": "inspection/attributions.py",
    "gradio": "inference/demo.py",
    "keras": "benchmark/baselines.py",
    "onnx_ir": "onnx/export.py",
    "onnxscript": "onnx/export.py",
    "onnxruntime": "onnx/runtime.py",
    "optuna": "training/tuning.py",
}
"""Optional dependencies, and the files that import each."""


def list_imports(path):
    """List every module that a file imports, at any depth, relative ones with their dots."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names) if module == "hf_maskattn" else [module]


def list_siblings(name):
    """List the files of `model/` that one of them imports."""
    return {module.removeprefix(".") for module in list_imports(ROOT / "model" / f"{name}.py") if module.startswith(".")}


def test_model_order_lists_every_file():
    assert sorted(MODEL_ORDER) == [path.stem for path in MODEL_FILES]


@pytest.mark.parametrize("path", MODEL_FILES, ids=lambda path: path.name)
def test_model_file_imports(path):
    for module in list_imports(path):
        if module.startswith("."):
            sibling = module.removeprefix(".")
            assert (ROOT / "model" / f"{sibling}.py").exists(), f"{module}: a sibling is imported as `from .name import thing`"
            assert sibling in MODEL_ORDER[: MODEL_ORDER.index(path.stem)], f"{path.name} imports {sibling}, a later file"
        else:
            package = module.split(".")[0]
            is_allowed = package in {"torch", "transformers", "huggingface_hub"} or package in sys.stdlib_module_names
            assert is_allowed, f"{module} may not be installed where the file is loaded"
    for line in path.read_text().splitlines():
        assert not line.strip().startswith("import ."), line
        if line.strip().startswith("from ."):
            assert line.startswith("from ."), f"{line.strip()!r}: transformers finds siblings by this text, also in docstrings"


@pytest.mark.parametrize(
    "entry", sorted({reference.split(".")[0] for reference in [*ENCODER.values(), *ENCODER_DECODER.values()]})
)
def test_entry_file_imports_all_files_it_needs(entry):
    siblings = list_siblings(entry)
    needed = {name for sibling in siblings for name in list_siblings(sibling)}
    assert needed <= siblings, "after an interrupted download transformers would not look for the others again"


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_package_imports_from_lower_levels(path):
    package = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if package in ("__init__", "__main__", "model"):
        return
    for module in list_imports(path):
        assert not module.startswith("."), f"{module}: outside of model/ imports are absolute"
        assert module != "hf_maskattn", "hf_maskattn itself imports from all levels: import the module"
        if module.startswith("hf_maskattn.") and module != "hf_maskattn.__version__":
            target = module.split(".")[1]
            is_lower = target == package or LEVELS[target] < LEVELS[package]
            assert is_lower, f"{path} imports {module}, which is not on a lower level"
        only_file = ONLY_IMPORTED_IN.get(module.split(".")[0])
        assert only_file is None or str(path.relative_to(ROOT)) in only_file, f"{module} is imported in {only_file} only"


def test_model_folder_is_flat():
    assert [path for path in (ROOT / "model").iterdir() if path.is_dir() and path.name != "__pycache__"] == []


def test_files_are_short():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in ROOT.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 450} == {}
