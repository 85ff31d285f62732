"""A checkpoint that was saved with the oldest or the newest versions gives the same numbers with either, without this package.

`pytest -m versions -n 0` builds two virtual environments, in the folder that `VERSIONS_CACHE` names: the lower bounds of
pyproject.toml, and what pip installs without bounds.
"""

import json
import os
import subprocess
import textwrap
from pathlib import Path

import pytest

from tests.lower_bounds import ROOT, build_environment, cache_folder, lower_bounds, requirements

pytestmark = pytest.mark.versions

TOLERANCE = 1e-6
"""Largest difference of outputs at unit scale in float32 between any two versions."""

OUTPUTS = """
    import json, torch

    IDS = torch.tensor([[5, 6, 7, 0], [0, 6, 5, 8], [0, 0, 0, 0]])
    MASK = torch.tensor([[1, 1, 1, 0], [0, 1, 0, 1], [0, 0, 0, 0]])

    def outputs(model):
        model.eval()
        with torch.no_grad():
            if model.config.model_type == "maskattn":
                return [model(IDS, MASK)[0].flatten().tolist(), []]
            logits = model(IDS, MASK, decoder_input_ids=IDS[:, :2] + 1).logits
            generated = [model.generate(IDS[:2], attention_mask=MASK[:2], num_beams=n, max_new_tokens=5) for n in (1, 2)]
        return [logits.flatten().tolist(), [ids.tolist() for ids in generated]]
"""

SAVE = """
    import hf_maskattn
    from tests.heads import HEADS, head_class

    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "embedding_size": 6, "hidden_size": 8, "attention_size": 8}
    models = {name: head_class(name)(hf_maskattn.MaskAttnConfig(**sizes, **changes)) for name, changes in HEADS.items()}
    for rnn_type in ("lstm", "gru"):
        config = hf_maskattn.RNNSearchConfig(**sizes, decoder_hidden_size=10, rnn_type=rnn_type)
        models[f"RNNSearch {rnn_type}"] = hf_maskattn.RNNSearchForConditionalGeneration(config)
    for name, model in models.items():
        model.save_pretrained(name)
    print(json.dumps({name: outputs(model) for name, model in models.items()}))
"""

LOAD = """
    import sys

    sys.modules["hf_maskattn"] = None  # where it is installed, it cannot be imported
    from pathlib import Path
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    found = {}
    for folder in sorted(Path(FOLDER).iterdir()):
        config = json.loads((folder / "config.json").read_text())
        reference = next(path for path in config["auto_map"].values() if path.endswith("." + config["architectures"][0]))
        model = get_class_from_dynamic_module(reference, folder).from_pretrained(folder)
        found[folder.name] = outputs(model)
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def interpreters():
    """The interpreter of each environment."""
    newest = [requirement.partition(">")[0] for requirement in requirements()]
    with cache_folder() as folder:
        yield {
            "oldest": build_environment(folder / "oldest", lower_bounds()),
            "newest": build_environment(folder / "newest", newest),
        }


def run(python: Path, code: str, cwd: Path, modules: Path, package: bool) -> dict:
    """Run `code` after `OUTPUTS` and return what it printed last, with or without this package."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(modules), "OMP_NUM_THREADS": "1"}
    if package:
        environment["PYTHONPATH"] = str(ROOT)
    code = textwrap.dedent(OUTPUTS) + textwrap.dedent(code)
    result = subprocess.run([python, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def saved(interpreters, tmp_path_factory):
    """The checkpoints that each environment saved with this package: their folder and their outputs."""
    found = {}
    for name, python in interpreters.items():
        folder = tmp_path_factory.mktemp(name)
        found[name] = folder, run(python, SAVE, folder, tmp_path_factory.mktemp("modules"), package=True)
    return found


@pytest.mark.parametrize("loaded_with", ["oldest", "newest"])
@pytest.mark.parametrize("saved_with", ["oldest", "newest"])
def test_outputs_are_the_same(saved_with, loaded_with, saved, interpreters, tmp_path):
    folder, expected = saved[saved_with]
    code = f"FOLDER = {str(folder)!r}\n{textwrap.dedent(LOAD)}"
    found = run(interpreters[loaded_with], code, tmp_path, tmp_path / "modules", package=False)
    assert set(found) == set(expected)
    for name, (numbers, generated) in expected.items():
        assert found[name][0] == pytest.approx(numbers, abs=TOLERANCE), name
        assert found[name][1] == generated, name
