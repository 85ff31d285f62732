"""What was pushed loads where this package is not installed: with trust in its code, by any revision, from the cache.

| the Hub | a warm cache | outcome |
| --- | --- | --- |
| answers | | every Auto class of the map, `pipeline`, tags, branches, commits; without trust no code is even fetched |
| drops a code file in the middle | no | loads after a retry |
| refuses a code file once with 500 | no | `OSError`; loads when tried again |
| truncates a code file | no | `OSError`; loads when tried again |
| `HF_HUB_OFFLINE=1` | yes | models, tokenizers and pipelines load |
| gone | yes | models load (a tokenizer too, after clients have retried for 46 s; `HF_HUB_OFFLINE=1` spares the wait) |
"""

import json
import re

import pytest

from tests.hub import faults
from tests.hub.client import findings
from tests.hub.server import Hub
from tests.hub.toys import OUTPUTS

OF_HEAD = {
    "encoder": "AutoModel",
    "tagger": "AutoModelForTokenClassification",
    "filler": "AutoModelForMaskedLM",
    "classifier": "AutoModelForSequenceClassification",
}

LOAD = """
    import os, sys, transformers
    from transformers import AutoModelForSequenceClassification

    def load(name, auto="AutoModelForSequenceClassification", **settings):
        return getattr(transformers, auto).from_pretrained(f"user/{name}", trust_remote_code=True, **settings)

    def classify(name, **settings):
        from transformers import pipeline
        return pipeline("text-classification", f"user/{name}", trust_remote_code=True, **settings)("cats meow")[0]["score"]

    def by_revision(name):
        for revision in ["main", "v1", "experiment", FIRST]:
            attempt(f"{name}, {revision}", lambda: outputs(load(name, revision=revision)))
        attempt(f"{name}, no such revision", lambda: load(name, revision="nowhere"))
"""

ONLINE = """
    doubted = AutoModelForSequenceClassification.from_pretrained
    for trust in [None, False]:
        attempt(f"refused {trust}", lambda: doubted("user/doubted", trust_remote_code=trust))
    attempt("refused pipeline", lambda: transformers.pipeline("text-classification", "user/doubted"))
    for name, auto in OF_HEAD.items():
        attempt(name, lambda: outputs(load(name, auto)))
    for auto in AUTO_MAP:
        attempt(auto, lambda: type(load("classifier", auto)).__name__)
    by_revision("classifier")
    attempt("pipeline", lambda: classify("classifier"))
    attempt("pipeline v1", lambda: classify("classifier", revision="v1"))
    attempt("task", lambda: transformers.pipeline(model="user/classifier", trust_remote_code=True).task)
    attempt("secret, nobody", lambda: classify("secret"))
    attempt("secret, token", lambda: classify("secret", token=TOKEN))
    attempt("secret, HF_TOKEN", lambda: os.environ.update(HF_TOKEN=TOKEN) or outputs(load("secret")))
    attempt("secret, another's", lambda: os.environ.update(HF_TOKEN=OTHER) or load("secret", force_download=True))
    del os.environ["HF_TOKEN"]
    attempt("nothing", lambda: load("nothing"))
    for name in FAULTY:
        attempt(name, lambda: outputs(load(name)))
        attempt(f"{name}, again", lambda: outputs(load(name)))
    found["foreign"] = sorted({type(load("classifier")).__module__.split(".")[0]})
    found["package"] = sys.modules["hf_maskattn"]
"""

OFFLINE = """
    by_revision("classifier")
    attempt("tokenizer", lambda: transformers.AutoTokenizer.from_pretrained("user/classifier")("cats meow").input_ids)
    attempt("pipeline", lambda: classify("classifier"))
    attempt("uncached", lambda: load("nothing"))
"""

UNREACHABLE = """
    for revision in ["main", "v1"]:
        attempt(revision, lambda: outputs(load("classifier", revision=revision)))
"""

FAULTY = {"code-dropped": faults.dropped, "code-500": faults.status(500), "code-truncated": faults.truncated}


@pytest.fixture(scope="module")
def setting(published):
    """What the code of the clients is told, besides the Hub."""
    hub = published.hub
    published.copy("user/doubted")
    for name, fault in FAULTY.items():
        published.copy(f"user/{name}")
        hub.fail("GET", f"*/user/{name}/*/attention.py", fault)
    config = json.loads(hub.repository("user/classifier").files()["config.json"])
    values = {
        "FIRST": hub.repository("user/classifier").at("v1").oid,
        "TOKEN": hub.token,
        "OTHER": hub.new_token("other"),
        "OF_HEAD": OF_HEAD,
        "AUTO_MAP": sorted(config["auto_map"]),
        "FAULTY": sorted(FAULTY),
    }
    return "".join(f"{name} = {value!r}\n" for name, value in values.items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("client")


@pytest.fixture(scope="module")
def online(published, setting, folder):
    return findings(published.hub, folder, setting, OUTPUTS, LOAD, ONLINE, package=False)


@pytest.fixture(scope="module")
def offline(online, published, setting, folder):
    """The same client, afterwards and without the network."""
    before = len(published.hub.log)
    found = findings(published.hub, folder, setting, OUTPUTS, LOAD, OFFLINE, package=False, HF_HUB_OFFLINE="1")
    assert published.hub.log[before:] == []
    return found


@pytest.fixture(scope="module")
def unreachable(online, setting, folder):
    """The same client, afterwards, which believes in the network while nobody listens."""
    with Hub() as gone:
        pass
    return findings(gone, folder, OUTPUTS, LOAD, UNREACHABLE, package=False)


def test_code_that_is_not_trusted_is_not_even_fetched(online, published):
    for name in ("refused None", "refused False", "refused pipeline"):
        assert re.match("ValueError: .*contains custom code which must be executed", online[name]), name
    assert published.hub.requests("*", "*/user/doubted/*/config.json")
    assert published.hub.requests("*", "*/user/doubted/*.py") == []
    assert published.hub.requests("GET", "*/user/classifier/*/modeling_maskattn.py")


def test_every_head_loads_bit_for_bit(online, published):
    names = {name: f"{name}-2" if name == "classifier" else name for name in OF_HEAD}
    assert {name: online[name] for name in names} == {name: published.outputs[which] for name, which in names.items()}
    assert online["foreign"] == ["transformers_modules"]
    assert online["package"] is None


def test_every_auto_class_of_the_map_loads(online, published):
    auto_map = json.loads(published.hub.repository("user/classifier").files()["config.json"])["auto_map"]
    assert set(auto_map) == {"AutoConfig", *OF_HEAD.values()}
    assert {name: online[name] for name in auto_map} == {name: path.split(".")[-1] for name, path in auto_map.items()}


@pytest.mark.parametrize("state", ["online", "offline"])
def test_tags_branches_and_commits_have_their_own_weights(state, request, published, online):
    found = request.getfixturevalue(state)
    first = published.hub.repository("user/classifier").at("v1").oid
    for revision, which in {"main": 2, "v1": 0, "experiment": 1, first: 0}.items():
        assert found[f"classifier, {revision}"] == published.outputs[f"classifier-{which}"], revision


def test_a_missing_repository_and_a_missing_revision_are_named(online):
    assert online["nothing"].startswith("OSError: user/nothing is not a local folder and is not a valid model identifier")
    assert online["classifier, no such revision"].startswith("OSError: nowhere is not a valid git identifier")


def test_a_pipeline_is_made_from_a_name(online):
    assert 0 < online["pipeline"] < 1
    assert online["pipeline v1"] != online["pipeline"]
    assert online["task"] == "text-classification"


def test_a_private_repository_opens_to_the_token_of_its_owner_alone(online, published):
    assert online["secret, nobody"].startswith("OSError: user/secret is not a local folder and is not a valid model identifier")
    assert online["secret, token"] == online["pipeline"]
    assert online["secret, HF_TOKEN"] == published.outputs["classifier-2"]
    assert online["secret, another's"].startswith("OSError:")
    assert {request.authorized for request in published.hub.requests("GET", "/lfs/*/user/secret/*")} == {False}


def test_offline_the_cache_is_enough(offline, online):
    assert offline["pipeline"] == online["pipeline"]
    assert offline["tokenizer"]
    assert offline["uncached"].startswith("OSError: We couldn't connect to")
    assert offline["classifier, no such revision"].startswith("OSError: We couldn't connect to")


def test_with_the_hub_gone_the_cache_is_enough_for_a_model(unreachable, published):
    assert unreachable == {"main": published.outputs["classifier-2"], "v1": published.outputs["classifier-0"]}


def test_code_that_arrives_in_pieces_is_never_run(online, published):
    expected = published.outputs["classifier-2"]
    assert online["code-dropped"] == expected
    assert online["code-500"].startswith("OSError: There was a specific connection error when trying to load user/code-500")
    assert online["code-truncated"].startswith("OSError: Consistency check failed: file should be of size")
    assert {name: online[f"{name}, again"] for name in FAULTY} == dict.fromkeys(FAULTY, expected)
