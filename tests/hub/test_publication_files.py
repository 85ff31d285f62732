import json

import pytest
import torch
import yaml

from hf_maskattn import MaskAttnForSequenceClassification, RNNSearchForConditionalGeneration
from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.hub import publication_files
from hf_maskattn.hub.publication_files import code_files, copy_published_files, is_obsolete, load_without_package
from hf_maskattn.model import modeling_maskattn
from hf_maskattn.model.remote_code import CODE_VERSION
from hf_maskattn.recipes.recipe import parse_yaml
from tests.toy_folder import PUBLISHED, write_model_folder


@pytest.fixture
def target(tmp_path):
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_copy_published_files_copies_nothing_else(folder, target):
    copy_published_files(folder, target)
    assert {path.name for path in target.iterdir()} == PUBLISHED | {path.name for path in code_files(modeling_maskattn)}
    assert (target / "config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_copy_published_files_strips_folders_in_recipe(folder, target, tmp_path):
    groups = {
        "model": {"task": "text-classification", "pretrained": str(tmp_path / "base"), "problem_type": None},
        "data": {
            "train_file": str(tmp_path / "data" / "train-*.jsonl"),
            "test_file": "data/test.jsonl",
            "source": "user/corpus",
            "label_column": "/",
            "labels": ["/a/b/c", "é"],
        },
        "training": {"output_dir": str(tmp_path / "run"), "learning_rate": 2e-5, "seed": 0},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(groups))
    copy_published_files(folder, target)
    assert str(tmp_path) not in (target / "recipe.yaml").read_text()
    published = yaml.safe_load((target / "recipe.yaml").read_text())
    groups["model"]["pretrained"] = "base"
    groups["data"]["train_file"] = "train-*.jsonl"
    groups["training"]["output_dir"] = "run"
    assert published == groups


def test_copy_published_files_reads_numbers_of_a_recipe_as_train_does(folder, target):
    (folder / "recipe.yaml").write_text("training:\n  learning_rate: 2e-5\ndata:\n  labels: [no, yes]\n")
    copy_published_files(folder, target)
    published = parse_yaml((target / "recipe.yaml").read_text(), "recipe.yaml")
    assert published == {"training": {"learning_rate": 2e-5}, "data": {"labels": ["no", "yes"]}}


def test_code_files_are_those_of_save_pretrained(folder):
    assert {path.name for path in code_files(modeling_maskattn)} == {path.name for path in folder.glob("*.py")}


def test_copy_published_files_of_encoder_decoder(tmp_path, target):
    folder = write_model_folder(tmp_path / "run", "RNNSearchForConditionalGeneration")
    copy_published_files(folder, target)
    code = {path.name for path in folder.glob("*.py")}
    assert {path.name for path in target.iterdir()} == PUBLISHED | code | {"generation_config.json"}
    assert "modeling_rnnsearch.py" in code
    assert (target / "config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_copy_published_files_of_shards(folder, target):
    model = MaskAttnForSequenceClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="1KB")
    copy_published_files(folder, target)
    shards = {path.name for path in folder.glob("model-*.safetensors")}
    assert len(shards) > 1
    assert {path.name for path in target.glob("model*.safetensors*")} == shards | {"model.safetensors.index.json"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.json", r"has no config.json\. Save the model with save_pretrained"),
        ("model.safetensors", r"has no model.safetensors\. .* Pickled weights \(.bin\) are not published"),
        ("tokenizer.json", r"has no tokenizer.json\. Save the tokenizer"),
    ],
)
def test_copy_published_files_names_missing_file(folder, target, name, words):
    torch.save({}, folder / "pytorch_model.bin")
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=words):
        copy_published_files(folder, target)


def test_copy_published_files_needs_folder(tmp_path, target):
    with pytest.raises(FileNotFoundError, match=r"folder .*nowhere does not exist\. Use one written by a training run"):
        copy_published_files(tmp_path / "nowhere", target)


def test_copy_published_files_rejects_truncated_weights(folder, target):
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-8])
    with pytest.raises(ValueError, match=r"model.safetensors is not a complete safetensors file \(.*\)\. Save the model again"):
        copy_published_files(folder, target)


def test_copy_published_files_does_not_open_pickle(folder, target):
    torch.save({}, folder / "model.safetensors")
    with pytest.raises(ValueError, match="is not a complete safetensors file"):
        copy_published_files(folder, target)


@pytest.mark.parametrize("shards", [["../../secret.safetensors"], [3], None])
def test_copy_published_files_rejects_index_of_other_files(folder, target, shards):
    (folder / "model.safetensors").unlink()
    content = {} if shards is None else {"weight_map": dict(enumerate(shards))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"model.safetensors.index.json names"):
        copy_published_files(folder, target)


def test_copy_published_files_rejects_invalid_config(folder, target):
    for content, words in {"{": "config.json is not valid JSON", "[]": "must be the configuration of a model"}.items():
        (folder / "config.json").write_text(content)
        with pytest.raises(ValueError, match=words):
            copy_published_files(folder, target)


def test_copy_published_files_rejects_newer_code(folder, target):
    change_config(folder, code_version="99.0.0")
    with pytest.raises(ValueError, match=rf"99.0.0, which is newer than {CODE_VERSION}\. .*: pip install --upgrade"):
        copy_published_files(folder, target)


def test_copy_published_files_rejects_invalid_card(folder, target):
    (folder / "README.md").write_text("---\n{ a: [\n---\n# run\n")
    with pytest.raises(ValueError, match="The header of the model card is not valid"):
        copy_published_files(folder, target)


def test_is_obsolete():
    published = {"model.safetensors", "config.json"}
    for name in ("model-00001-of-00003.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "training_args.bin"):
        assert is_obsolete(name, published)
    for name in ("model.safetensors", "config.json", "README.md", "onnx/model.onnx", "model.onnx", ".gitattributes"):
        assert not is_obsolete(name, published)


@pytest.mark.slow
def test_load_without_package_hides_token(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    folder = write_model_folder(tmp_path, "RNNSearchForConditionalGeneration")
    with (folder / "packing.py").open("a") as code:  # it is run, so it can report what it sees
        code.write(
            f"import os, pathlib\npathlib.Path({str(tmp_path / 'seen')!r}).write_text(str(os.environ.get('HF_TOKEN')))\n"
        )
    assert load_without_package(folder) == RNNSearchForConditionalGeneration.from_pretrained(folder).num_parameters()
    assert (tmp_path / "seen").read_text() == "None"


@pytest.mark.slow
def test_load_without_package_reports_all_mismatches(tmp_path):
    folder = write_model_folder(tmp_path)
    model = MaskAttnForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.classifier.bias[0] = torch.nan
    model.save_pretrained(folder)
    change_config(folder, num_hidden_layers=2, attention_size=4)
    words = [f"word{n}" for n in range(90)]
    train_tokenizer(words, kind="word", vocab_size=90, max_length=8).save_pretrained(folder)
    with pytest.raises(ValueError, match="The files of the model do not match: ") as caught:
        load_without_package(folder)
    message = str(caught.value)
    assert "weights are missing (maskattn.recurrence.layers.1" in message
    assert "weights have other sizes (maskattn.pooling" in message
    assert "weights are not finite (classifier.bias)" in message
    assert "the tokenizer has 90 tokens, the model has 10 embeddings" in message


def test_load_without_package_reports_last_line_of_error(tmp_path, monkeypatch):
    monkeypatch.setattr(publication_files, "_LOAD_SCRIPT", "open('packing.py')")
    with pytest.raises(ValueError, match=r"The model does not load: .*packing.py"):
        load_without_package(tmp_path)
