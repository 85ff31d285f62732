import json
import logging
import shutil

import pytest
from huggingface_hub import constants
from transformers import BertConfig

from hf_maskattn.hub import publish as hub_module
from hf_maskattn.hub.publication_files import code_files
from hf_maskattn.hub.publish import make_repository, publish
from hf_maskattn.model import modeling_maskattn
from tests.toy_folder import PUBLISHED, write_model_folder

# What huggingface_hub 2.4 does while it uploads large files.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

CODE = {path.name for path in code_files(modeling_maskattn)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_model_folder(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole, tmp_path):
    """A model folder of one's own."""
    return shutil.copytree(whole, tmp_path / "run")


@pytest.fixture(autouse=True)
def loads(monkeypatch):
    """The load in a process of its own, which costs seconds, has a test file of its own."""
    monkeypatch.setattr(hub_module, "load_without_package", lambda folder: 600)


def test_one_commit_has_all_that_a_stranger_needs_and_nothing_else(folder, connected):
    found = publish(folder, "pets", message="first")
    repository = connected.repository("user/pets")
    assert repository.titles() == ["first"]
    assert set(repository.files()) == set(found.files) == set(found.changed) == PUBLISHED | CODE
    assert (found.repo_id, found.revision, found.removed) == ("user/pets", None, [])
    assert (found.url, found.commit) == (f"{connected.url}/user/pets", repository.at().oid)
    assert found.is_new
    for name in PUBLISHED - {"README.md", "config.json"}:
        assert repository.files()[name] == (folder / name).read_bytes()


def test_the_card_calls_the_model_by_its_name_on_the_hub(folder, connected):
    publish(folder, "pets")
    card = connected.repository("user/pets").files()["README.md"].decode()
    assert "\n# user/pets\n" in card
    assert card.count('model="user/pets"') == 2
    assert "- name: user/pets\n" in card
    assert '"run"' not in card
    assert '"run"' in (folder / "README.md").read_text()


def test_a_folder_without_a_card_gets_one_but_not_over_one_on_the_hub(folder, connected, caplog):
    caplog.set_level(logging.INFO)
    (folder / "README.md").unlink()
    publish(folder, "pets")
    assert "README.md" not in caplog.text
    repository = connected.repository("user/pets")
    assert b"600 parameters" in repository.files()["README.md"]
    repository.commit({"README.md": "written by hand"})
    assert "README.md" not in publish(folder, "pets").files
    assert repository.files()["README.md"] == b"written by hand"
    assert f"{folder} has no README.md: that of user/pets stays, and may tell of other weights." in caplog.text


def test_an_encoder_decoder_is_loaded_by_its_class(tmp_path, connected):
    folder = write_model_folder(tmp_path / "run", "RNNSearchForConditionalGeneration")
    (folder / "README.md").unlink()
    found = publish(folder, "dates", revision="dev")
    assert found.task == "text2text-generation"
    assert found.loading_call() == 'AutoModelForSeq2SeqLM.from_pretrained("user/dates", revision="dev")'
    card = connected.repository("user/dates").files("dev")["README.md"].decode()
    assert "A recurrent encoder-decoder for texts from texts: 1 + 1 GRU layers of width 8" in card
    assert "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer" in card
    assert 'model = AutoModelForSeq2SeqLM.from_pretrained("user/dates", trust_remote_code=True)' in card


def test_what_has_not_changed_is_not_committed(folder, connected):
    first = publish(folder, "user/pets")
    again = publish(folder, "user/pets")
    assert not again.is_new
    assert again.commit == first.commit
    assert len(connected.repository("user/pets").titles()) == 1
    (folder / "metrics.json").write_text("{}")
    third = publish(folder, "user/pets")
    assert third.changed == ["metrics.json"]
    assert [len(connected.repository("user/pets").titles()), third.is_new] == [2, True]


def test_weights_and_pickles_of_an_earlier_model_do_not_stay(folder, connected):
    names = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "training_args.bin"]
    kept = {"LICENSE": "mine", "onnx/model.onnx": "mine"}
    repository = connected.create("user/pets", {**dict.fromkeys(names, "old"), **kept})
    assert publish(folder, "user/pets").removed == sorted(names)
    assert set(repository.files()) == PUBLISHED | CODE | set(kept)
    assert len(repository.titles()) == 2


def test_the_code_is_that_of_the_package_and_the_configuration_names_it(folder, connected):
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


def test_a_branch_that_is_not_there_is_made_and_the_main_one_left_alone(folder, connected):
    found = publish(folder, "user/pets", revision="try/one")
    repository = connected.repository("user/pets")
    assert set(repository.files("try/one")) == PUBLISHED | CODE
    assert repository.titles("main") == []
    assert (found.url, found.revision) == (f"{connected.url}/user/pets/tree/try/one", "try/one")
    (folder / "metrics.json").write_text("{}")
    publish(folder, "user/pets", revision="try/one")
    assert len(repository.titles("try/one")) == 2


def test_a_pull_request_is_opened_instead_of_a_commit(folder, connected):
    found = publish(folder, "user/pets", create_pr=True)
    repository = connected.repository("user/pets")
    assert repository.titles() == []
    assert set(repository.files("refs/pr/1")) == PUBLISHED | CODE
    assert (found.url, found.revision) == (f"{connected.url}/user/pets/discussions/1", "refs/pr/1")
    (folder / "metrics.json").write_text("{}")
    publish(folder, "user/pets", revision="refs/pr/1")
    assert len(repository.titles("refs/pr/1")) == 2


def test_a_pull_request_needs_no_right_to_write(folder, connected):
    repository = connected.create("someone/pets")
    assert publish(folder, "someone/pets", create_pr=True).revision == "refs/pr/1"
    assert repository.titles() == []


@pytest.mark.parametrize(("revision", "words"), [("v1", "'v1' is a tag of user/pets"), ("dev", "'dev' does not exist in")])
def test_revisions_that_nothing_can_be_committed_to(folder, connected, revision, words):
    connected.create("user/pets").tag("v1")
    with pytest.raises(ValueError, match=words):
        publish(folder, "user/pets", revision=revision, create_pr=revision == "dev")


def test_private_repositories(folder, connected):
    publish(folder, "secret", private=True)
    assert connected.repository("user/secret").private
    connected.create("user/open")
    with pytest.raises(ValueError, match="user/open exists and is public, and would stay so: make it private at "):
        publish(folder, "open", private=True)
    assert connected.repository("user/open").titles() == []
    assert make_repository("other", private=True) == "user/other"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"repo_id": "a/b/c"}, "'a/b/c' is no name of a repository, expected `name` or `user/name`: Repo id must be in"),
        ({"repo_id": "-a"}, "'-a' is no name of a repository"),
        ({"revision": "a" * 40}, "is no branch: a model is committed to a branch"),
        ({"revision": " "}, "is no branch"),
        ({"message": " "}, "the message of a commit may not be empty"),
    ],
)
def test_names_that_are_not_possible(folder, connected, settings, words):
    with pytest.raises(ValueError, match=words):
        publish(folder, **{"repo_id": "user/pets", **settings})
    assert connected.log == []


def test_without_a_token_nothing_is_sent(folder, connected, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with pytest.raises(
        PermissionError, match=r"there is no token for http.*: run `hf auth login`, or set the variable HF_TOKEN"
    ):
        publish(folder, "user/pets")
    assert connected.log == []


def test_a_token_that_nobody_knows(folder, connected, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(PermissionError, match=r"does not accept the token .*: run `hf auth login`") as caught:
        publish(folder, "user/pets")
    assert "hf_wrong" not in str(caught.value)


def test_a_token_that_may_not_write(folder, connected, monkeypatch):
    connected.create("someone/pets")
    monkeypatch.setenv("HF_TOKEN", connected.new_token(role="read"))
    for name in ("someone/pets", "user/new"):
        with pytest.raises(PermissionError, match=f"the token may not write to {name} .*: make one with that right at "):
            publish(folder, name)


def test_a_hub_that_is_not_there(folder, connected, monkeypatch):
    monkeypatch.setattr("hf_maskattn.hub.upload.WAITS", ())
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"http://127.0.0.1:9 cannot be reached, or broke off \(.*refused.*\): try again"):
        publish(folder, "user/pets")


def test_offline(folder, connected, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"HF_HUB_OFFLINE .* is set: unset it"):
        publish(folder, "user/pets")


def test_a_model_that_does_not_load_is_not_sent(folder, connected, monkeypatch):
    def refuse(loaded):
        raise ValueError("weights are missing (a).")

    monkeypatch.setattr(hub_module, "load_without_package", refuse)
    with pytest.raises(ValueError, match=r"run is not published: weights are missing \(a\)\."):
        publish(folder, "user/pets")
    assert connected.log == []


def test_a_folder_that_is_not_ours_is_not_sent(tmp_path, connected):
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a 'bert' model, only maskattn and maskattn_rnnsearch models are"):
        publish(tmp_path, "user/pets")
    assert connected.log == []
