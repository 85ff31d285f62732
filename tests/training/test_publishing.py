import json
import logging

import pytest
from transformers import TrainingArguments

from hf_maskattn.hub import publish as hub_module
from hf_maskattn.model.remote_code import CODE_VERSION
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training import train as train_module
from hf_maskattn.training.publishing import NotPublished, take_over_publishing
from hf_maskattn.training.train import train
from tests.hub import faults
from tests.training.toy_recipe import write_recipe

# What huggingface_hub 2.4 does while it uploads large files.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(hub_module, "load_without_package", lambda folder: 600)
    monkeypatch.setattr("hf_maskattn.hub.upload.WAITS", (0.01,))


def read(tmp_path, **training):
    return load_recipe(write_recipe(tmp_path, training={"push_to_hub": True, **training}))


def test_every_save_and_the_end_are_published(tmp_path, connected):
    report = train(read(tmp_path, hub_model_id="pets", hub_private_repo=True))
    repository = connected.repository("user/pets")
    title = f"Model of hf-maskattn {CODE_VERSION}"
    assert repository.titles() == [title, f"{title} in training, step 10", f"{title} in training, step 5"]
    assert repository.private
    assert report.publication.commit == repository.at().oid
    assert b"accuracy" in repository.files()["README.md"]
    for commit in repository.history()[:-1]:
        names = set(commit.tree)
        assert {"model.safetensors", "config.json", "modeling_maskattn.py", "tokenizer.json", "README.md"} <= names
        assert not any(name.endswith((".bin", ".pt", ".pth")) or "/" in name for name in names)
    weights = repository.files()["model.safetensors"]
    assert weights == (tmp_path / "run" / "model.safetensors").read_bytes()


def test_only_the_end_is_published_where_that_is_asked_for(tmp_path, connected):
    train(read(tmp_path, hub_strategy="end", hub_revision="dev"))
    assert len(connected.repository("user/run").titles("dev")) == 1
    assert connected.repository("user/run").titles() == []


def test_a_save_that_is_not_published_does_not_end_the_run(tmp_path, connected, caplog):
    connected.fail("POST", "*/commit/main", faults.status(500), times=2)
    with caplog.at_level(logging.WARNING):
        train(read(tmp_path))
    assert "Step 5 was not published, training goes on: http" in caplog.text
    assert len(connected.repository("user/run").titles()) == 2


def test_a_run_that_is_not_published_in_the_end_is_whole_and_says_what_to_do(tmp_path, connected):
    connected.fail("POST", "*/commit/main", faults.status(500), times=100)
    with pytest.raises(NotPublished) as caught:
        train(read(tmp_path, hub_strategy="end", hub_private_repo=True))
    folder = tmp_path / "run"
    assert str(caught.value).startswith(f"the run is finished and whole in {folder}, but not published: http")
    assert str(caught.value).endswith(f"Then: hf-maskattn push {folder} user/run --private")
    assert caught.value.report.metrics == json.loads((folder / "metrics.json").read_text())["metrics"]
    assert (folder / "model.safetensors").is_file()
    assert connected.repository("user/run").titles() == []


def test_what_is_missing_for_a_publication_is_told_before_anything_is_trained(tmp_path, connected, monkeypatch):
    monkeypatch.setattr(train_module, "assemble", None)
    with pytest.raises(PermissionError, match="The token has no write access to someone/pets"):
        train(read(tmp_path, hub_model_id="someone/pets"))
    assert not (tmp_path / "run").exists()


def test_trainer_does_not_publish_by_itself(tmp_path):
    arguments = {"push_to_hub": True, "hub_revision": "dev", "use_cpu": True}
    args = TrainingArguments(tmp_path / "run", **arguments)
    target = take_over_publishing(args)
    assert not args.push_to_hub
    assert (target.repo_id, target.private, target.revision, target.at_every_save) == ("run", None, "dev", True)
    assert take_over_publishing(args) is None


@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_states_of_the_optimizer_are_not_published(tmp_path, strategy):
    words = f"training.hub_strategy='{strategy}' would publish states of the optimizer, which are pickles: end and every_save"
    with pytest.raises(ValueError, match=words):
        train(read(tmp_path, hub_strategy=strategy))
