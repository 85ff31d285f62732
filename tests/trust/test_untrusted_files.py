"""Files of an untrusted folder are read as data only. What cannot be read is an error of one line."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from hf_maskattn.checkpoints.checkpoints import write_manifest
from hf_maskattn.cli import app
from hf_maskattn.data.tokenizers import load_tokenizer
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training.train import train
from tests.training.toy_recipe import write_recipe

VERBS = ["predict", "evaluate", "audit", "export", "train"]


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "executed")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train(load_recipe(write_recipe(folder, training={"num_train_epochs": 1})))
    return folder


@pytest.fixture
def model(trained, tmp_path):
    """A copy of a model folder, which a test may change."""
    return shutil.copytree(trained / "run", tmp_path / "model", ignore=shutil.ignore_patterns("checkpoint-*"))


@pytest.fixture
def proof(tmp_path):
    """The file that exists if a payload was executed."""
    yield tmp_path / "proof"
    assert not (tmp_path / "proof").exists()


@pytest.fixture
def use(trained, tmp_path, monkeypatch):
    """Run a command on a folder."""
    monkeypatch.setattr("hf_maskattn.cli.console.show_messages", lambda: None)
    recipe = yaml.safe_load((trained / "toy.yaml").read_text())
    fine_tuning = {
        "model": {"task": "text-classification"},
        "data": {key: value for key, value in recipe["data"].items() if key.endswith("_file")},
        "training": {**recipe["training"], "output_dir": str(tmp_path / "tuned")},
    }

    def run(verb, folder):
        fine_tuning["model"]["pretrained"] = str(folder)
        (tmp_path / "tuning.yaml").write_text(yaml.safe_dump(fine_tuning))
        arguments = {
            "predict": [folder, "--text", "meow"],
            "evaluate": [folder, trained / "toy.yaml"],
            "audit": [folder],
            "export": [folder, "--onnx", tmp_path / "model.onnx"],
            "train": [tmp_path / "tuning.yaml"],
        }[verb]
        return CliRunner().invoke(app, [verb, *map(str, arguments)])

    return run


def is_rejected(result, words):
    assert result.exit_code == 2, (result.exception, result.output)
    (line,) = (line for line in result.stderr.splitlines() if line and not line.startswith("Loading weights: "))
    assert line.startswith("error: ")
    assert words in line
    return True


@pytest.mark.parametrize("verb", VERBS)
def test_pickle_instead_of_weights_is_not_read(model, proof, use, verb):
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(proof)))
    assert is_rejected(use(verb, model), "pytorch_model.bin is not loaded, because a pickle can run any code")


@pytest.mark.parametrize("verb", VERBS)
def test_pickle_named_safetensors_is_not_read(model, proof, use, verb):
    (model / "model.safetensors").write_bytes(pickle.dumps(Payload(proof)))
    assert is_rejected(use(verb, model), "model.safetensors is not a complete safetensors file")


@pytest.mark.parametrize("verb", VERBS)
def test_code_next_to_weights_is_not_run(model, proof, use, verb):
    code = f"from pathlib import Path\nPath({str(proof)!r}).write_text('executed')\n"
    for path in model.glob("*.py"):
        path.write_text(code)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "not-known-here"}))
    assert is_rejected(use(verb, model), "The config.json of ")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", "[1, 2]", "it must be a JSON object"),
        ("tokenizer.json", "{broken", "tokenizer"),
        ("tokenizer.json", '{"model": 5}', "tokenizer"),
        ("tokenizer_config.json", "[]", "tokenizer"),
    ],
)
@pytest.mark.parametrize("verb", ["predict", "audit"])
def test_invalid_files_are_errors_of_one_line(model, use, verb, name, content, words):
    (model / name).write_text(content)
    assert is_rejected(use(verb, model), words)


def test_truncated_and_mismatched_weights_are_errors_of_one_line(model, use):
    weights = model / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-9])
    assert is_rejected(use("predict", model), "is not a complete safetensors file")
    weights.write_bytes(content)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": 10**15}))
    for verb in VERBS:
        assert is_rejected(use(verb, model), "The weights of ")


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"])
def test_pickle_of_checkpoint_is_not_executed(trained, tmp_path, proof, name):
    run = shutil.copytree(trained / "run", tmp_path / "run")
    (run / "metrics.json").unlink()
    torch.save({"state": Payload(proof)}, run / "checkpoint-5" / name)
    write_manifest(run / "checkpoint-5")
    recipe = load_recipe(trained / "toy.yaml", [f"training.output_dir={run}", "training.num_train_epochs=2"])
    if name == "training_args.bin":
        train(recipe, resume=True)
    else:
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            train(recipe, resume=True)


def test_payload_is_executed_when_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def test_tokenizer_with_code_is_rejected(model, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("asked"))
    config = json.loads((model / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": [None, "tokens.Evil"]}, "tokenizer_class": "Evil"}
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_tokenizer(model)
