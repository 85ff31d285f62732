"""Law: every commit that Trainer, `push_to_hub` or this package makes loads where this package is not installed."""

import json

import pytest

from hf_maskattn.model.code_version import CODE_VERSION
from tests.hub.client import run_client

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


@pytest.fixture(scope="module")
def loaded(runs_on_hub, tmp_path_factory):
    """What a process without the package and with an empty cache loads from each commit."""
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
def test_every_commit_loads(runs_on_hub, loaded, name, titles):
    commits = history(runs_on_hub.hub, name)
    assert [commit.title for commit in commits] == titles
    assert all(f"{name} {commit.oid}" in loaded for commit in commits)


def test_a_pipeline_from_the_hub_works_without_the_package(loaded):
    assert loaded["pipeline"] in ("cat", "dog")


def test_what_this_package_publishes_has_no_pickle(runs_on_hub):
    for commit in history(runs_on_hub.hub, "recipe"):
        assert not any(name.endswith((".bin", ".pt", ".pth", ".pkl")) for name in commit.tree)
        assert not any(blob.content.startswith((b"PK", b"\x80")) for blob in commit.tree.values())
