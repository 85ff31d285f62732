"""Law: a file imports only from lower floors, and the files that travel only what is there where they arrive."""

import ast
import sys
from pathlib import Path

import pytest

import hf_maskattn
from hf_maskattn.model.configuration_maskattn import AUTO_MAP as ENCODER
from hf_maskattn.model.configuration_rnnsearch import AUTO_MAP as DECODER

ROOT = Path(hf_maskattn.__file__).parent
CARRIED = sorted((ROOT / "model").glob("*.py"))
FLOORS = {
    "cli": 9,
    "training": 8,
    "benchmark": 8,
    "recipes": 7,
    "checkpoints": 6,
    "processes": 6,
    "data": 6,
    "evaluation": 6,
    "inspection": 6,
    "export": 6,
    "loading": 5,
    "registration": 4,
    "tokenization": 3,
    "model": 3,
}
CARRIED_FLOORS = {
    "modeling": 3,
    "recurrence": 2,
    "attention": 2,
    "decoder": 2,
    "deep_output": 2,
    "masking": 0,
    "tensor_checks": 0,
    "precision": 0,
    "code_version": 0,
    "configuration": 0,
}
HOMES = {
    "babel": "data/cldr.py",
    "jiwer": "evaluation/edit_distance.py",
    "sacrebleu": "evaluation/translation.py",
    "seqeval": "evaluation/spans.py",
    "matplotlib": "inspection/plots.py",
    "keras": "benchmark/keras_rival.py",
    "onnx_ir": "export/onnx_recurrence.py",
    "onnxscript": "export/onnx_recurrence.py",
    "onnxruntime": "export/onnx_runtime.py",
}


def imports(path):
    """Every module that a file imports, at any depth, relative ones with their dots."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names) if module == "hf_maskattn" else [module]


def siblings(name):
    """The carried files that one imports."""
    return {module.removeprefix(".") for module in imports(ROOT / "model" / f"{name}.py") if module.startswith(".")}


def carried_floor(name):
    return next((floor for prefix, floor in CARRIED_FLOORS.items() if name.startswith(prefix)), 1)


@pytest.mark.parametrize("path", CARRIED, ids=lambda path: path.name)
def test_carried_files(path):
    for module in imports(path):
        if module.startswith("."):
            sibling = module.removeprefix(".")
            assert (ROOT / "model" / f"{sibling}.py").exists(), f"{module}: only `from .name import thing` finds its file"
            assert carried_floor(sibling) <= carried_floor(path.stem), f"{path.name} imports {sibling} from above"
        else:
            top = module.split(".")[0]
            assert top in {"torch", "transformers", "huggingface_hub"} or top in sys.stdlib_module_names, module
    for line in path.read_text().splitlines():
        assert not line.strip().startswith("import ."), line
        if line.strip().startswith("from ."):
            assert line.startswith("from ."), (
                f"{line.strip()!r} is found by its text: keep it at the top, outside of docstrings"
            )


@pytest.mark.parametrize("entry", sorted({reference.split(".")[0] for reference in [*ENCODER.values(), *DECODER.values()]}))
def test_the_files_that_classes_are_loaded_from_name_all_they_need(entry):
    named = siblings(entry)
    assert {needed for name in named for needed in siblings(name)} <= named, "after a cut download the others would be missing"


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_floors(path):
    place = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if place in ("__init__", "model"):
        return
    for module in imports(path):
        assert not module.startswith("."), f"{module}: above the carried files imports are absolute"
        assert module != "hf_maskattn", "the package as a whole stands above all floors: name the file that is needed"
        if module.startswith("hf_maskattn.") and module != "hf_maskattn.__version__":
            target = module.split(".")[1]
            assert target == place or FLOORS[target] < FLOORS[place], f"{path} imports {module} from its floor or above"
        home = HOMES.get(module.split(".")[0])
        assert home is None or path == ROOT / home, f"{module} is imported in {home} alone"


def test_the_files_that_travel_are_few_and_flat():
    assert [p for p in (ROOT / "model").iterdir() if p.is_dir() and p.name != "__pycache__"] == []
    assert all(len(p.read_text().splitlines()) <= 450 for p in CARRIED)
