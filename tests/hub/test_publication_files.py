import json
import shutil

import pytest
import torch
import yaml

from hf_maskattn.hub.publication_files import code_files, copy_what_is_published, is_left_over
from hf_maskattn.model import modeling_maskattn
from hf_maskattn.model.remote_code import CODE_VERSION
from tests.toy_folder import PUBLISHED, write_model_folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_model_folder(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


@pytest.fixture
def target(tmp_path):
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_what_is_published_is_copied_and_nothing_else(folder, target):
    copy_what_is_published(folder, target)
    assert {path.name for path in target.iterdir()} == PUBLISHED | {path.name for path in code_files(modeling_maskattn)}
    assert (target / "config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_a_published_recipe_names_files_without_their_folders(folder, target, tmp_path):
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
    copy_what_is_published(folder, target)
    assert str(tmp_path) not in (target / "recipe.yaml").read_text()
    published = yaml.safe_load((target / "recipe.yaml").read_text())
    groups["model"]["pretrained"] = "base"
    groups["data"]["train_file"] = "train-*.jsonl"
    groups["training"]["output_dir"] = "run"
    assert published == groups


def test_the_code_is_what_save_pretrained_writes(folder):
    assert {path.name for path in code_files(modeling_maskattn)} == {path.name for path in folder.glob("*.py")}


def test_an_encoder_decoder_has_code_and_settings_of_its_own(tmp_path, target):
    folder = write_model_folder(tmp_path / "run", "RNNSearchForConditionalGeneration")
    copy_what_is_published(folder, target)
    code = {path.name for path in folder.glob("*.py")}
    assert {path.name for path in target.iterdir()} == PUBLISHED | code | {"generation_config.json"}
    assert "modeling_rnnsearch.py" in code
    assert (target / "config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_weights_in_several_files(folder, target):
    from hf_maskattn import MaskAttnForSequenceClassification

    model = MaskAttnForSequenceClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="1KB")
    copy_what_is_published(folder, target)
    shards = {path.name for path in folder.glob("model-*.safetensors")}
    assert len(shards) > 1
    assert {path.name for path in target.glob("model*.safetensors*")} == shards | {"model.safetensors.index.json"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.json", "has no config.json: save the model there with save_pretrained"),
        ("model.safetensors", r"has no model.safetensors: .* pickled weights \(.bin\) are not published"),
        ("tokenizer.json", "has no tokenizer.json: save the tokenizer there"),
    ],
)
def test_what_is_missing_is_named(folder, target, name, words):
    torch.save({}, folder / "pytorch_model.bin")
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=words):
        copy_what_is_published(folder, target)


def test_there_must_be_a_folder(tmp_path, target):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere: name one that a training run"):
        copy_what_is_published(tmp_path / "nowhere", target)


def test_weights_that_were_cut_off(folder, target):
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-8])
    with pytest.raises(ValueError, match=r"model.safetensors is no whole file of weights \(.*\): save the model again"):
        copy_what_is_published(folder, target)


def test_a_pickle_under_the_name_of_weights_is_not_opened(folder, target):
    torch.save({}, folder / "model.safetensors")
    with pytest.raises(ValueError, match="is no whole file of weights"):
        copy_what_is_published(folder, target)


@pytest.mark.parametrize("shards", [["../../secret.safetensors"], [3], None])
def test_an_index_of_weights_that_names_other_files(folder, target, shards):
    (folder / "model.safetensors").unlink()
    content = {} if shards is None else {"weight_map": dict(enumerate(shards))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"model.safetensors.index.json names"):
        copy_what_is_published(folder, target)


def test_a_configuration_that_is_no_json(folder, target):
    for content, words in {"{": "config.json is not JSON", "[]": "is no configuration of a model"}.items():
        (folder / "config.json").write_text(content)
        with pytest.raises(ValueError, match=words):
            copy_what_is_published(folder, target)


def test_a_model_of_newer_code_waits_for_that_code(folder, target):
    change_config(folder, code_version="99.0.0")
    with pytest.raises(ValueError, match=rf"was saved by hf_maskattn 99.0.0, this is {CODE_VERSION}: pip install --upgrade"):
        copy_what_is_published(folder, target)


def test_a_card_that_nobody_can_read(folder, target):
    (folder / "README.md").write_text("---\n{ a: [\n---\n# run\n")
    with pytest.raises(ValueError, match="the header of the model card cannot be read"):
        copy_what_is_published(folder, target)


def test_other_weights_and_pickled_arguments_are_left_over():
    published = {"model.safetensors", "config.json"}
    for name in ("model-00001-of-00003.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "training_args.bin"):
        assert is_left_over(name, published)
    for name in ("model.safetensors", "config.json", "README.md", "onnx/model.onnx", "model.onnx", ".gitattributes"):
        assert not is_left_over(name, published)
