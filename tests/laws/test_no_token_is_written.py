"""Law: a token is in no file, log, card or upload of a run that is published with it, nor is a misplaced one repeated."""

import io
import zipfile

import pytest
from typer.testing import CliRunner

from hf_maskattn.cli import app
from tests.training.toy_recipe import write_recipe

TOKEN_FILES = {"token", "stored_tokens"}
"""Where `hf auth login` would write it, under HF_HOME."""


def holds(data: bytes, token: bytes) -> bool:
    """Whether bytes hold a token, as they are or packed."""
    if token in data:
        return True
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return False
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return any(holds(archive.read(name), token) for name in archive.namelist())


def files_with(token, folder):
    return [
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file() and path.name not in TOKEN_FILES and holds(path.read_bytes(), token)
    ]


def uploads_with(token, hub, name):
    sent = [request for request in hub.log if f"user/{name}" in request.path or "/api/repos/create" in request.path]
    assert len(sent) > 10
    headers = [str({key: value for key, value in request.headers.items() if key != "authorization"}) for request in sent]
    told = [*headers, *(request.target for request in sent)]
    stored = [blob.content for commit in hub.repository(f"user/{name}").history() for blob in commit.tree.values()]
    return [text for text in told if token.decode() in text] + [
        data for data in [*(request.body for request in sent), *stored] if holds(data, token)
    ]


def test_it_is_in_no_file(runs_on_hub):
    folder = runs_on_hub.recipe_folder
    assert (folder / "run" / "training_args.bin").is_file()
    assert (folder / "hf_home").is_dir()
    assert files_with(runs_on_hub.token, folder) == []


def test_it_is_in_no_upload(runs_on_hub):
    assert uploads_with(runs_on_hub.token, runs_on_hub.hub, "recipe") == []


def test_it_is_in_no_output(runs_on_hub):
    assert "Published: http" in runs_on_hub.output
    assert runs_on_hub.token.decode() not in runs_on_hub.output


def test_the_search_finds_the_token_that_plain_trainer_writes_and_uploads(runs_on_hub):
    """Without this the tests above might look at nothing: `hub_token=` ends up in a pickle."""
    found = files_with(runs_on_hub.given_token, runs_on_hub.plain_folder)
    assert {path.name for path in found} == {"training_args.bin"}
    assert uploads_with(runs_on_hub.given_token, runs_on_hub.hub, "every_save") != []


@pytest.mark.parametrize(
    "override",
    [
        "training.hub_token={token}",
        "training.push_to_hub_token={token}",
        "training.hub_tokens={token}",
        "training.hub_token=[{token}",
        "model.hub_token={token}",
        "hub_token={token}",
        "training={token}",
        "training.hub_token:{token}",
        "{token}",
        "--training.hub_token={token}",
    ],
)
def test_one_that_was_put_on_the_command_line_is_not_said_again(override, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_maskattn.cli.messages.show_messages", lambda: None)
    arguments = ["train", str(write_recipe(tmp_path)), override.format(token="hf_sEcReT")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert len(done.stderr) > 20
    assert "hf_sEcReT" not in done.output


@pytest.mark.parametrize("line", ["training: hub_token={token}", "hub_token: {token}", "training: {{hub_token: {token}}}"])
def test_one_that_was_put_in_a_recipe_is_not_said_again(line, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_maskattn.cli.messages.show_messages", lambda: None)
    (tmp_path / "recipe.yaml").write_text(line.format(token="hf_sEcReT"))
    done = CliRunner().invoke(app, ["train", str(tmp_path / "recipe.yaml")])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert "hf_sEcReT" not in done.output
