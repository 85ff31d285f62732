import pytest
from huggingface_hub import constants

from hf_maskattn.hub import publish as hub_module
from tests.cli.conftest import run
from tests.hub import faults
from tests.toy_folder import write_model_folder
from tests.training.toy_recipe import write_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model_folder(tmp_path_factory.mktemp("push") / "run")


@pytest.fixture(autouse=True)
def _quick(monkeypatch, connected):
    monkeypatch.setattr(hub_module, "load_without_package", lambda folder: 600)
    monkeypatch.setattr("hf_maskattn.hub.upload.WAITS", ())


def test_push_prints_url_and_loading_calls(folder, connected):
    result = run("push", folder, "pets")
    assert result.exit_code == 0, result.stderr
    commit, names = connected.repository("user/pets").at().oid, connected.repository("user/pets").files()
    call = 'transformers.pipeline("text-classification", model="user/pets"'
    assert result.stdout.splitlines() == [
        f"Published: {connected.url}/user/pets (commit {commit[:7]}: {len(names)} of {len(names)} files)",
        f"Load:      import hf_maskattn, transformers; {call})",
        f"Anywhere:  import transformers; {call}, trust_remote_code=True)",
    ]
    result = run("push", folder, "user/pets")
    assert result.exit_code == 0
    expected = f"Nothing to publish: {connected.url}/user/pets has these {len(names)} files already (commit {commit[:7]})"
    assert result.stdout.splitlines()[0] == expected


def test_push_options_are_passed_on(folder, connected):
    connected.create("user/pets", {"pytorch_model.bin": "old"})
    result = run("push", folder, "user/pets", "--create-pr", "--message", "better")
    assert result.exit_code == 0, result.stderr
    assert connected.repository("user/pets").titles("refs/pr/1")[0] == "better"
    assert f"{connected.url}/user/pets/discussions/1 (commit " in result.stdout
    assert ", removed: pytorch_model.bin)" in result.stdout
    assert 'model="user/pets", revision="refs/pr/1", trust_remote_code=True)' in result.stdout
    result = run("push", folder, "user/secret", "--private", "--revision", "dev")
    assert result.exit_code == 0, result.stderr
    assert connected.repository("user/secret").private
    assert f"{connected.url}/user/secret/tree/dev (commit " in result.stdout


def test_token_option_is_refused(folder, connected):
    result = run("push", folder, "user/pets", "--token", "hf_secret")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --token is not supported, because shells save their commands. Run `hf auth login`")
    assert "hf_secret" not in result.stderr + result.stdout
    assert "--token" not in run("push", "--help").stdout
    assert connected.log == []


def test_push_errors_are_one_line(folder, connected, monkeypatch):
    connected.create("user/open")
    connected.fail("POST", "*/commit/main", faults.status(500), times=9)
    for arguments, message in {
        ("push", folder / "nowhere", "pets"): "nowhere does not exist",
        ("push", folder / "checkpoint-5", "pets"): "has no config.json. Save the model with save_pretrained",
        ("push", folder, "a/b/c"): "The repository must be `name` or `user/name`, got 'a/b/c'",
        ("push", folder, "someone/pets"): "The token has no write access to someone/pets",
        ("push", folder, "open", "--private"): "user/open must be private, but exists and is public",
        ("push", folder, "pets"): f"{connected.url} failed with status 500 (the server fails as planned). Try again later.",
    }.items():
        result = run(*arguments)
        assert result.exit_code == 2, (arguments, result.stderr)
        last = result.stderr.splitlines()[-1]  # above it, perhaps, the progress of uploads
        assert last.startswith("error: ")
        assert message in last
        assert "Traceback" not in result.stderr
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "no-token"))
    assert f"error: There is no token for {connected.url}. Run `hf auth login`" in run("push", folder, "pets").stderr


def test_unpublished_run_prints_metrics_and_command(connected, tmp_path):
    recipe = write_recipe(
        tmp_path, training={"push_to_hub": True, "hub_model_id": "pets", "hub_strategy": "end", "num_train_epochs": 1}
    )
    connected.fail("POST", "*/commit/main", faults.status(500), times=1)
    result = run("train", recipe)
    assert result.exit_code == 2
    assert "accuracy" in result.stdout
    assert "is finished, but was not published. " in result.stderr
    command = result.stderr.strip().rpartition(" To publish it: hf-maskattn ")[2].split()
    assert command == ["push", str(tmp_path / "run"), "user/pets"]
    result = run(*command)
    assert f"Published: {connected.url}/user/pets (commit " in result.stdout
