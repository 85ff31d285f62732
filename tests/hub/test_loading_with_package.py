"""What was pushed loads where this package is imported; what goes wrong is told in one line, and never loads by halves.

What `hf-maskattn predict user/name` does when the Hub fails once, at which request, and what it does when it is run again:

| request | fault | outcome | again |
| --- | --- | --- | --- |
| GET information | 500, or cut | predicts; the revision is found by the file requests | predicts |
| HEAD config.json | cut | error, exit code 2 | predicts |
| GET config.json | 500 | error, exit code 2 | predicts |
| GET config.json | 429, Retry-After: 1 | predicts after the wait | predicts |
| GET config.json | content of the right size, changed | error, exit code 2 | error until it is fetched anew |
| GET listing | 500 | predicts after a retry | predicts |
| GET tokenizer.json | dropped in the middle | predicts after a retry | predicts |
| GET tokenizer.json | truncated | error, exit code 2 | predicts |
| HEAD model.safetensors | cut | error, exit code 2 | predicts |
| GET model.safetensors | 500 | error, exit code 2 | predicts |
| GET model.safetensors | 429, Retry-After: 1 | predicts after the wait | predicts |
| GET model.safetensors | dropped in the middle | predicts after a retry | predicts |
| GET model.safetensors | truncated | error, exit code 2 | predicts |
| GET model.safetensors | content of the right size, changed | **predicts, wrongly**: clients check the size alone | the same |

The last is found by `hf cache verify` and mended by `from_pretrained(..., force_download=True)`.
"""

import math

import pytest

from tests.hub import faults
from tests.hub.client import findings
from tests.hub.toys import OUTPUTS

INFORMATION = "/api/models/user/{}"
LISTING = "/api/models/user/{}/tree/*"
CONFIG = "*/user/{}/*/config.json"
TOKENIZER = "*/user/{}/*/tokenizer.json"
WEIGHTS = "/lfs/*/user/{}/*/model.safetensors"

NOT_LOADED = "is neither a folder here nor could it be loaded from the Hub: "
FAULTY = {
    "information-500": ("GET", INFORMATION, faults.status(500), None),
    "information-cut": ("GET", INFORMATION, faults.unheard, None),
    "config-cut": ("HEAD", CONFIG, faults.unheard, NOT_LOADED + "Server disconnected without sending a response"),
    "config-500": ("GET", CONFIG, faults.status(500), NOT_LOADED + "There was a specific connection error"),
    "config-429": ("GET", CONFIG, faults.crowded_out, None),
    "listing-500": ("GET", LISTING, faults.status(500), None),
    "tokenizer-dropped": ("GET", TOKENIZER, faults.dropped, None),
    "tokenizer-truncated": (
        "GET",
        TOKENIZER,
        faults.truncated,
        NOT_LOADED + "Consistency check failed: file should be of size",
    ),
    "weights-cut": (
        "HEAD",
        "*/user/{}/*/model.safetensors",
        faults.unheard,
        "the Hub broke off when model.safetensors of user/weights-cut was asked for: Server disconnected",
    ),
    "weights-500": ("GET", WEIGHTS, faults.status(500), "There was a specific connection error when trying to load"),
    "weights-429": ("GET", WEIGHTS, faults.crowded_out, None),
    "weights-dropped": ("GET", WEIGHTS, faults.dropped, None),
    "weights-truncated": ("GET", WEIGHTS, faults.truncated, "Consistency check failed: file should be of size"),
}
"""By name of a repository: the request that fails once, how, and what `predict` says; None if it predicts."""

LOAD = """
    import contextlib, io, os, sys
    sys.argv = ["hf-maskattn"]
    import huggingface_hub
    from hf_maskattn.cli import app
    from hf_maskattn.loading import load_config
    from transformers import AutoModelForSequenceClassification

    def load(name, **settings):
        return AutoModelForSequenceClassification.from_pretrained(f"user/{name}", **settings)

    def command(*arguments):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = app(list(arguments), standalone_mode=False)
        return code or 0, out.getvalue(), err.getvalue()

    def predict(name):
        code, out, err = command("predict", f"user/{name}", "--text", "cats meow")
        return code, json.loads(out)["predictions"][0]["score"] if out else None, err

    attempt("config", lambda: load_config("user/classifier").model_type)
    for revision in ["main", "v1", "experiment"]:
        attempt(revision, lambda: outputs(load("classifier", revision=revision)))
    attempt("trusted", lambda: type(load("trusted", trust_remote_code=True)).__module__)
    for name in ["classifier", "nothing", "secret", "encoder", "tagger"]:
        attempt(f"predict {name}", lambda: predict(name))
    for name in ["classifier", "nothing", "secret", "encoder", "unsure"]:
        attempt(f"audit {name}", lambda: command("audit", f"user/{name}"))
    os.environ["HF_TOKEN"] = TOKEN
    attempt("predict secret, token", lambda: predict("secret"))
    del os.environ["HF_TOKEN"]

    for name in FAULTY:
        attempt(name, lambda: predict(name))
        attempt(f"{name}, again", lambda: predict(name))

    attempt("broken config", lambda: predict("config-changed"))
    attempt("broken config, again", lambda: predict("config-changed"))
    attempt("wrong weights", lambda: predict("weights-changed"))
    attempt("wrong weights, again", lambda: predict("weights-changed"))
    for name in ["weights-changed", "weights-dropped"]:
        found[f"verify {name}"] = [
            mismatch["path"] for mismatch in huggingface_hub.HfApi().verify_repo_checksums(f"user/{name}").mismatches
        ]
    load("weights-changed", force_download=True)
    attempt("wrong weights, mended", lambda: predict("weights-changed"))
"""


@pytest.fixture(scope="module")
def found(published, tmp_path_factory):
    hub = published.hub
    for name, (method, pattern, fault, _) in FAULTY.items():
        published.copy(f"user/{name}")
        hub.fail(method, pattern.format(name), fault)
    for name, pattern, fault in [
        ("trusted", "none", faults.lost),
        ("unsure", "*/user/unsure/*/tokenizer_config.json", faults.status(500)),
        ("config-changed", CONFIG.format("config-changed"), faults.corrupted),
        ("weights-changed", WEIGHTS.format("weights-changed"), faults.corrupted),
    ]:
        published.copy(f"user/{name}")
        hub.fail("GET", pattern, fault)
    told = f"TOKEN = {hub.token!r}\nFAULTY = {list(FAULTY)}\n"
    return findings(hub, tmp_path_factory.mktemp("client"), told, OUTPUTS, LOAD)


def assert_told(outcome, *words):
    """A command ended with exit code 2, nothing on stdout, and one line on stderr."""
    code, out, err = outcome
    assert (code, out or None) == (2, None), outcome
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for word in words:
        assert word in err


def test_the_installed_class_loads_every_revision(found, published):
    assert found["config"] == "maskattn"
    for revision, which in {"main": 2, "v1": 0, "experiment": 1}.items():
        assert found[revision] == published.outputs[f"classifier-{which}"], revision


def test_the_installed_class_goes_before_the_code_of_the_repository(found, published):
    assert found["trusted"] == "hf_maskattn.model.modeling_maskattn"
    assert published.hub.requests("*", "*/user/trusted/*/config.json")
    assert published.hub.requests("*", "*/user/trusted/*.py") == []


def test_a_name_can_be_predicted_with_and_audited(found):
    code, score, err = found["predict classifier"]
    assert (code, err) == (0, "")
    assert 0 < score < 1
    code, report, err = found["audit classifier"]
    assert (code, err) == (0, "")
    assert "MaskAttnForSequenceClassification" in report
    assert ": texts, " in report


def test_what_is_wrong_with_a_name_is_told_in_one_line(found):
    for name in ("nothing", "secret"):
        words = (f"the model 'user/{name}' " + NOT_LOADED, "hf auth login")
        assert_told(found[f"predict {name}"], *words)
        assert_told(found[f"audit {name}"], *words)
    assert_told(found["predict encoder"], "was saved as MaskAttnModel, which predicts nothing")
    assert_told(found["predict tagger"], "'user/tagger' could not be read as a tokenizer")


def test_a_private_model_opens_to_its_owner(found):
    assert found["predict secret, token"] == found["predict classifier"]


def test_an_audit_goes_without_a_tokenizer_only_if_there_is_none(found):
    code, report, _ = found["audit encoder"]
    assert code == 0
    assert ": random ids, " in report
    assert_told(found["audit unsure"], "There was a specific connection error when trying to load user/unsure")


@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_ends_in_the_right_prediction_or_in_one_line_and_leaves_nothing_broken(found, published, name):
    method, pattern, _, message = FAULTY[name]
    struck = [request for request in published.hub.requests(method, pattern.format(name)) if request.fault]
    assert len(struck) == 1
    if message is None:
        assert found[name] == found["predict classifier"]
    else:
        assert_told(found[name], message)
    assert found[f"{name}, again"] == found["predict classifier"]


def test_changed_content_of_the_right_size_stays_until_it_is_fetched_anew(found):
    for attempt in ("broken config", "broken config, again"):
        assert_told(found[attempt], "the config.json of user/config-changed cannot be used: ")
    for attempt in ("wrong weights", "wrong weights, again"):
        code, score, _ = found[attempt]
        assert code == 0
        assert not math.isclose(score, found["predict classifier"][1])
    assert found["verify weights-changed"] == ["model.safetensors"]
    assert found["verify weights-dropped"] == []
    assert found["wrong weights, mended"] == found["predict classifier"]
