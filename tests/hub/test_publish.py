import json
import logging

import pytest
from huggingface_hub import constants
from transformers import BertConfig

from hf_maskattn.hub import publish as publish_module
from hf_maskattn.hub.publication_files import code_files
from hf_maskattn.hub.publish import make_repository, publish
from hf_maskattn.loading import download_revision, find_recipe
from hf_maskattn.model import modeling_maskattn
from tests.toy_folder import PUBLISHED, write_model_folder

CODE = {path.name for path in code_files(modeling_maskattn)}


@pytest.fixture(autouse=True)
def skip_load(monkeypatch):
    """Skip the load in another process, which takes seconds and has its own tests."""
    monkeypatch.setattr(publish_module, "load_without_package", lambda folder: 600)


def test_publish_makes_one_commit_of_published_files(folder, connected):
    found = publish(folder, "pets", message="first")
    repository = connected.repository("user/pets")
    assert repository.titles() == ["first"]
    assert set(repository.files()) == set(found.files) == set(found.changed) == PUBLISHED | CODE
    assert (found.repo_id, found.revision, found.removed) == ("user/pets", None, [])
    assert (found.url, found.commit) == (f"{connected.url}/user/pets", repository.at().oid)
    assert found.is_new
    for name in PUBLISHED - {"README.md", "config.json"}:
        assert repository.files()[name] == (folder / name).read_bytes()


def test_publish_renames_model_in_card(folder, connected):
    publish(folder, "pets")
    card = connected.repository("user/pets").files()["README.md"].decode()
    assert "\n# user/pets\n" in card
    assert card.count('model="user/pets"') == 2
    assert "- name: user/pets\n" in card
    assert '"run"' not in card
    assert '"run"' in (folder / "README.md").read_text()


def test_publish_adds_card_but_keeps_one_on_the_hub(folder, connected, caplog):
    caplog.set_level(logging.INFO)
    (folder / "README.md").unlink()
    publish(folder, "pets")
    assert "README.md" not in caplog.text
    repository = connected.repository("user/pets")
    assert b"600 parameters" in repository.files()["README.md"]
    repository.commit({"README.md": "written by hand"})
    assert "README.md" not in publish(folder, "pets").files
    assert repository.files()["README.md"] == b"written by hand"
    assert f"{folder} has no README.md. The one of user/pets is kept, and may describe other weights." in caplog.text


def test_publish_encoder_decoder(tmp_path, connected):
    folder = write_model_folder(tmp_path / "run", "RNNSearchForConditionalGeneration")
    (folder / "README.md").unlink()
    found = publish(folder, "dates", revision="dev")
    assert found.task == "text2text-generation"
    assert found.loading_call() == 'AutoModelForSeq2SeqLM.from_pretrained("user/dates", revision="dev")'
    card = connected.repository("user/dates").files("dev")["README.md"].decode()
    assert "A recurrent encoder-decoder for text to text: 1 + 1 GRU layers of width 8" in card
    assert "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer" in card
    assert 'model = AutoModelForSeq2SeqLM.from_pretrained("user/dates", trust_remote_code=True)' in card


def test_publish_commits_only_changes(folder, connected):
    first = publish(folder, "user/pets")
    again = publish(folder, "user/pets")
    assert not again.is_new
    assert again.commit == first.commit
    assert len(connected.repository("user/pets").titles()) == 1
    (folder / "metrics.json").write_text("{}")
    third = publish(folder, "user/pets")
    assert third.changed == ["metrics.json"]
    assert [len(connected.repository("user/pets").titles()), third.is_new] == [2, True]


def test_publish_removes_weights_and_pickles_of_earlier_model(folder, connected):
    names = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "training_args.bin"]
    kept = {"LICENSE": "mine", "onnx/model.onnx": "mine"}
    repository = connected.create("user/pets", {**dict.fromkeys(names, "old"), **kept})
    assert publish(folder, "user/pets").removed == sorted(names)
    assert set(repository.files()) == PUBLISHED | CODE | set(kept)
    assert len(repository.titles()) == 2


def test_publish_uses_code_of_package(folder, connected):
    (folder / "masking.py").unlink()
    (folder / "softmax.py").write_text("raise SystemExit")
    config = json.loads((folder / "config.json").read_text())
    expected = json.dumps(config, indent=2, sort_keys=True) + "\n"
    del config["auto_map"], config["code_version"]
    (folder / "config.json").write_text(json.dumps(config))
    publish(folder, "user/pets")
    files = connected.repository("user/pets").files()
    for source in code_files(modeling_maskattn):
        assert files[source.name] == source.read_bytes()
    assert files["config.json"].decode() == expected


@pytest.mark.parametrize(
    ("settings", "revision", "page"),
    [({"revision": "try/one"}, "try/one", "tree/try/one"), ({"create_pr": True}, "refs/pr/1", "discussions/1")],
)
def test_publish_creates_branch_or_pull_request(folder, connected, settings, revision, page):
    found = publish(folder, "user/pets", **settings)
    repository = connected.repository("user/pets")
    assert repository.titles() == []
    assert set(repository.files(revision)) == PUBLISHED | CODE
    assert (found.url, found.revision) == (f"{connected.url}/user/pets/{page}", revision)
    (folder / "metrics.json").write_text("{}")
    publish(folder, "user/pets", revision=revision)
    assert len(repository.titles(revision)) == 2


def test_publish_pull_request_without_write_access(folder, connected):
    repository = connected.create("someone/pets")
    assert publish(folder, "someone/pets", create_pr=True).revision == "refs/pr/1"
    assert repository.titles() == []


@pytest.mark.parametrize(
    ("revision", "words"), [("v1", "got 'v1', which is a tag of user/pets"), ("dev", "must be an existing branch")]
)
def test_publish_rejects_tag_and_missing_branch(folder, connected, revision, words):
    connected.create("user/pets").tag("v1")
    with pytest.raises(ValueError, match=words):
        publish(folder, "user/pets", revision=revision, create_pr=revision == "dev")


def test_publish_private_repository(folder, connected):
    publish(folder, "secret", private=True)
    assert connected.repository("user/secret").private
    connected.create("user/open")
    with pytest.raises(ValueError, match=r"user/open must be private, but exists and is public\. Make it private at "):
        publish(folder, "open", private=True)
    assert connected.repository("user/open").titles() == []
    assert make_repository("other", private=True) == "user/other"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"repo_id": "a/b/c"}, "must be `name` or `user/name`, got 'a/b/c': Repo id must be in"),
        ({"repo_id": "-a"}, "must be `name` or `user/name`, got '-a'"),
        ({"revision": "a" * 40}, "revision must be the name of a branch, got 'aaa"),
        ({"revision": " "}, "revision must be the name of a branch"),
        ({"message": " "}, "The commit message must not be empty"),
    ],
)
def test_publish_rejects_invalid_names(folder, connected, settings, words):
    with pytest.raises(ValueError, match=words):
        publish(folder, **{"repo_id": "user/pets", **settings})
    assert connected.log == []


def test_publish_needs_token(folder, connected, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with pytest.raises(PermissionError, match=r"There is no token for http.*\. Run `hf auth login`, or set the variable HF"):
        publish(folder, "user/pets")
    assert connected.log == []


def test_publish_with_unknown_token(folder, connected, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(PermissionError, match=r"rejected the token .*\. Run `hf auth login`") as caught:
        publish(folder, "user/pets")
    assert "hf_wrong" not in str(caught.value)


def test_publish_without_write_access(folder, connected, monkeypatch):
    connected.create("someone/pets")
    monkeypatch.setenv("HF_TOKEN", connected.new_token(role="read"))
    for name in ("someone/pets", "user/new"):
        with pytest.raises(PermissionError, match=rf"The token has no write access to {name} .*\. Create one at "):
            publish(folder, name)


def test_publish_to_unreachable_hub(folder, connected, monkeypatch):
    monkeypatch.setattr("hf_maskattn.hub.upload.WAITS", ())
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"http://127.0.0.1:9 could not be reached, .* \(.*refused.*\)\. Try again"):
        publish(folder, "user/pets")


def test_publish_offline(folder, connected, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"HF_HUB_OFFLINE .* is set\. Unset it"):
        publish(folder, "user/pets")


def test_publish_sends_nothing_if_model_does_not_load(folder, connected, monkeypatch):
    def refuse(loaded):
        raise ValueError("Weights are missing (a).")

    monkeypatch.setattr(publish_module, "load_without_package", refuse)
    with pytest.raises(ValueError, match=r"run was not published\. Weights are missing \(a\)\."):
        publish(folder, "user/pets")
    assert connected.log == []


def test_publish_sends_nothing_of_other_models(tmp_path, connected):
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="must be a maskattn or maskattn_rnnsearch model, got 'bert'"):
        publish(tmp_path, "user/pets")
    assert connected.log == []


def test_download_revision_selects_branch_and_commit(folder, connected, tmp_path, monkeypatch):
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{connected.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    first = publish(folder, "pets")
    (folder / "recipe.yaml").write_text("model:\n  task: fill-mask\n")
    publish(folder, "pets", revision="dev")
    for revision, task in {"main": "text-classification", "dev": "fill-mask", first.commit: "text-classification"}.items():
        assert task in find_recipe(download_revision("user/pets", revision)).read_text()
    assert download_revision("user/pets", None) == "user/pets"
    with pytest.raises(FileNotFoundError, match="Revision 'nowhere' of user/pets could not be loaded from the Hub: "):
        download_revision("user/pets", "nowhere")
