"""Loading from the Hub without this package: with trust in its code, by any revision, and offline from the cache.

Faults while code is downloaded: a connection that breaks in the answer is retried. A refused (500) or truncated file is an
`OSError`, and a second call loads.
"""

import json
import re

import pytest

from tests.hub import faults
from tests.hub.client import findings
from tests.hub.toys import OUTPUTS

AUTO_CLASSES = {
    "encoder": "AutoModel",
    "tagger": "AutoModelForTokenClassification",
    "filler": "AutoModelForMaskedLM",
    "classifier": "AutoModelForSequenceClassification",
}

pytestmark = pytest.mark.slow

FAULTY = {"code-dropped": faults.dropped, "code-500": faults.status(500), "code-truncated": faults.truncated}

LOAD = """
    import os, sys, huggingface_hub, transformers
    from transformers import AutoModelForSequenceClassification

    def load(name, auto="AutoModelForSequenceClassification", **settings):
        return getattr(transformers, auto).from_pretrained(f"user/{name}", trust_remote_code=True, **settings)

    def classify(name, **settings):
        pipeline = transformers.pipeline("text-classification", f"user/{name}", trust_remote_code=True, **settings)
        return pipeline("cats meow")[0]["score"]

    def load_revisions(state):
        for revision in ["main", "v1", "experiment", FIRST]:
            attempt(f"{state}, {revision}", lambda: outputs(load("classifier", revision=revision)))
        attempt(f"{state}, no such revision", lambda: load("classifier", revision="nowhere"))
        attempt(f"{state}, nothing", lambda: load("nothing"))
        attempt(f"{state}, pipeline", lambda: classify("classifier"))

    untrusted = AutoModelForSequenceClassification.from_pretrained
    for trust in [None, False]:
        attempt(f"untrusted {trust}", lambda: untrusted("user/untrusted", trust_remote_code=trust))
    attempt("untrusted pipeline", lambda: transformers.pipeline("text-classification", "user/untrusted"))
    for name, auto in AUTO_CLASSES.items():
        attempt(name, lambda: outputs(load(name, auto)))
    for auto in AUTO_MAP:
        attempt(auto, lambda: type(load("classifier", auto)).__name__)
    load_revisions("online")
    attempt("pipeline v1", lambda: classify("classifier", revision="v1"))
    attempt("task", lambda: transformers.pipeline(model="user/classifier", trust_remote_code=True).task)
    attempt("secret, nobody", lambda: classify("secret"))
    attempt("secret, token", lambda: classify("secret", token=TOKEN))
    attempt("secret, HF_TOKEN", lambda: os.environ.update(HF_TOKEN=TOKEN) or outputs(load("secret")))
    attempt("secret, another's", lambda: os.environ.update(HF_TOKEN=OTHER) or load("secret", force_download=True))
    del os.environ["HF_TOKEN"]
    for name in FAULTY:
        attempt(name, lambda: outputs(load(name)))
        attempt(f"{name}, again", lambda: outputs(load(name)))
    found["modules"] = sorted({type(load("classifier")).__module__.split(".")[0]})
    found["package"] = sys.modules["hf_maskattn"]
    huggingface_hub.HfApi().create_tag("user/untrusted", tag="offline", token=TOKEN)  # a mark in the log
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    load_revisions("offline")
    attempt("offline, tokenizer", lambda: transformers.AutoTokenizer.from_pretrained("user/classifier")("cats meow").input_ids)
"""


@pytest.fixture(scope="module")
def found(published, tmp_path_factory):
    """What a client loaded, first online and then from its cache."""
    hub = published.hub
    published.copy("user/untrusted")
    for name, fault in FAULTY.items():
        published.copy(f"user/{name}")
        hub.fail("GET", f"*/user/{name}/*/attention.py", fault)
    config = json.loads(hub.repository("user/classifier").files()["config.json"])
    values = {
        "FIRST": hub.repository("user/classifier").at("v1").oid,
        "TOKEN": hub.token,
        "OTHER": hub.new_token("other"),
        "AUTO_CLASSES": AUTO_CLASSES,
        "AUTO_MAP": sorted(config["auto_map"]),
        "FAULTY": sorted(FAULTY),
    }
    settings = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    found = findings(hub, tmp_path_factory.mktemp("client"), settings, OUTPUTS, LOAD, package=False)
    last = hub.log[-1]
    assert (last.method, last.path.rpartition("/tag/")[0]) == ("POST", "/api/models/user/untrusted")  # nothing after it
    return found


def test_untrusted_code_is_not_downloaded(found, published):
    for name in ("untrusted None", "untrusted False", "untrusted pipeline"):
        assert re.match("ValueError: .*contains custom code which must be executed", found[name]), name
    assert published.hub.requests("*", "*/user/untrusted/*/config.json")
    assert published.hub.requests("*", "*/user/untrusted/*.py") == []
    assert published.hub.requests("GET", "*/user/classifier/*/modeling_maskattn.py")


def test_every_head_loads_bit_for_bit(found, published):
    names = {name: f"{name}-2" if name == "classifier" else name for name in AUTO_CLASSES}
    assert {name: found[name] for name in names} == {name: published.outputs[which] for name, which in names.items()}
    assert found["modules"] == ["transformers_modules"]
    assert found["package"] is None


def test_every_auto_class_of_auto_map_loads(found, published):
    auto_map = json.loads(published.hub.repository("user/classifier").files()["config.json"])["auto_map"]
    assert set(auto_map) == {"AutoConfig", *AUTO_CLASSES.values()}
    assert {name: found[name] for name in auto_map} == {name: path.split(".")[-1] for name, path in auto_map.items()}


@pytest.mark.parametrize("state", ["online", "offline"])
def test_revisions_load_their_own_weights(found, published, state):
    first = published.hub.repository("user/classifier").at("v1").oid
    for revision, which in {"main": 2, "v1": 0, "experiment": 1, first: 0}.items():
        assert found[f"{state}, {revision}"] == published.outputs[f"classifier-{which}"], revision


def test_missing_repository_and_revision_are_named(found):
    words = "OSError: user/nothing is not a local folder and is not a valid model identifier"
    assert found["online, nothing"].startswith(words)
    assert found["online, no such revision"].startswith("OSError: nowhere is not a valid git identifier")
    for name in ("offline, nothing", "offline, no such revision"):
        assert found[name].startswith("OSError: We couldn't connect to")


def test_pipeline_of_hub_name(found):
    assert 0 < found["online, pipeline"] < 1
    assert found["offline, pipeline"] == found["online, pipeline"]
    assert found["pipeline v1"] != found["online, pipeline"]
    assert found["task"] == "text-classification"
    assert found["offline, tokenizer"]


def test_private_repository_needs_token_of_its_owner(found, published):
    assert found["secret, nobody"].startswith("OSError: user/secret is not a local folder and is not a valid model identifier")
    assert found["secret, token"] == found["online, pipeline"]
    assert found["secret, HF_TOKEN"] == published.outputs["classifier-2"]
    assert found["secret, another's"].startswith("OSError:")
    assert {request.authorized for request in published.hub.requests("GET", "/lfs/*/user/secret/*")} == {False}


def test_incomplete_code_is_never_run(found, published):
    expected = published.outputs["classifier-2"]
    assert found["code-dropped"] == expected
    assert found["code-500"].startswith("OSError: There was a specific connection error when trying to load user/code-500")
    assert found["code-truncated"].startswith("OSError: Consistency check failed: file should be of size")
    assert {name: found[f"{name}, again"] for name in FAULTY} == dict.fromkeys(FAULTY, expected)
