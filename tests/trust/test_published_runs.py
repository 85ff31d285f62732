"""Every commit of Trainer, `push_to_hub` or this package loads without this package, and no token is in any file, log, card or
upload of a run that this package publishes.
"""

import io
import json
import zipfile

import pytest

from hf_maskattn.model.remote_code import CODE_VERSION
from tests.hub.client import run_client

pytestmark = pytest.mark.slow

LOAD = """
    import json, transformers
    found = {}
    for name, commits in json.load(open("commits.json")).items():
        for commit in commits:
            model, loaded = transformers.AutoModelForSequenceClassification.from_pretrained(
                f"user/{name}", revision=commit, trust_remote_code=True, output_loading_info=True
            )
            assert type(model).__module__.startswith("transformers_modules"), type(model)
            assert not loaded["missing_keys"] and not loaded["unexpected_keys"], loaded
            found[f"{name} {commit}"] = float(model.classifier.weight.sum())
    pipe = transformers.pipeline("text-classification", model="user/recipe", trust_remote_code=True)
    found["pipeline"] = pipe("meow purr")[0]["label"]
    json.dump(found, open("found.json", "w"))
"""

TOKEN_FILES = {"token", "stored_tokens"}
"""Where `hf auth login` writes the token, in HF_HOME."""


def holds(data: bytes, token: bytes) -> bool:
    """Whether bytes contain a token, also within a zip archive."""
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
    texts = [*headers, *(request.target for request in sent)]
    stored = [blob.content for commit in hub.repository(f"user/{name}").history() for blob in commit.tree.values()]
    return [text for text in texts if token.decode() in text] + [
        data for data in [*(request.body for request in sent), *stored] if holds(data, token)
    ]


@pytest.fixture(scope="module")
def loaded(runs_on_hub, tmp_path_factory):
    """The result of loading each commit in a process without the package and with an empty cache."""
    hub, folder = runs_on_hub.hub, tmp_path_factory.mktemp("load")
    commits = {name: [commit.oid for commit in history(hub, name)] for name in runs_on_hub.names}
    (folder / "commits.json").write_text(json.dumps(commits))
    done = run_client(hub, LOAD, folder, package=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text())


def history(hub, name):
    return hub.repository(f"user/{name}").history()[:-1]


@pytest.mark.parametrize(
    ("name", "titles"),
    [
        ("every_save", ["End of training", "Training in progress, step 2", "Training in progress, step 1"]),
        ("checkpoint", ["Training in progress, step 1, checkpoint", "Training in progress, step 1"]),
        ("all_checkpoints", ["Training in progress, step 1, checkpoint", "Training in progress, step 1"]),
        ("pushed", ["Upload MaskAttnForSequenceClassification"]),
        ("recipe", [f"Model of hf-maskattn {CODE_VERSION}", f"Model of hf-maskattn {CODE_VERSION} in training, step 5"]),
    ],
)
def test_every_commit_loads_without_package(runs_on_hub, loaded, name, titles):
    commits = history(runs_on_hub.hub, name)
    assert [commit.title for commit in commits] == titles
    assert all(f"{name} {commit.oid}" in loaded for commit in commits)


def test_pipeline_loads_without_package(loaded):
    assert loaded["pipeline"] in ("cat", "dog")


def test_published_commits_have_no_pickle(runs_on_hub):
    for commit in history(runs_on_hub.hub, "recipe"):
        assert not any(name.endswith((".bin", ".pt", ".pth", ".pkl")) for name in commit.tree)
        assert not any(blob.content.startswith((b"PK", b"\x80")) for blob in commit.tree.values())


def test_no_file_contains_token(runs_on_hub):
    folder = runs_on_hub.recipe_folder
    assert (folder / "run" / "training_args.bin").is_file()
    assert (folder / "hf_home").is_dir()
    assert files_with(runs_on_hub.token, folder) == []


def test_no_upload_contains_token(runs_on_hub):
    assert uploads_with(runs_on_hub.token, runs_on_hub.hub, "recipe") == []


def test_output_does_not_contain_token(runs_on_hub):
    assert "Published: http" in runs_on_hub.output
    assert runs_on_hub.token.decode() not in runs_on_hub.output


def test_search_finds_token_of_plain_trainer(runs_on_hub):
    """Shows that the tests above can fail: Trainer writes `hub_token=` to a pickle."""
    found = files_with(runs_on_hub.given_token, runs_on_hub.plain_folder)
    assert {path.name for path in found} == {"training_args.bin"}
    assert uploads_with(runs_on_hub.given_token, runs_on_hub.hub, "every_save") != []
