"""Loading from the Hub with this package: every revision, and errors of one line.

Clients check only the size of weights: after other content of the right size the prediction is wrong, until
`hf cache verify` finds it and `from_pretrained(..., force_download=True)` repairs it.
"""

import math

import pytest

from tests.hub import faults
from tests.hub.client import findings
from tests.hub.toys import OUTPUTS

pytestmark = pytest.mark.slow

INFORMATION = "/api/models/user/{}"
CONFIG = "*/user/{}/*/config.json"
TOKENIZER = "*/user/{}/*/tokenizer.json"
WEIGHTS = "/lfs/*/user/{}/*/model.safetensors"

NOT_LOADED = "is not a folder and could not be loaded from the Hub: "
TOKENIZER_NOT_LOADED = "Consistency check failed: file should be of size"
FAULTY = {
    "information-500": ("GET", INFORMATION, faults.status(500), None),
    "config-cut": ("HEAD", CONFIG, faults.unheard, NOT_LOADED + "Server disconnected without sending a response"),
    "config-500": ("GET", CONFIG, faults.status(500), NOT_LOADED + "There was a specific connection error"),
    "tokenizer-truncated": ("GET", TOKENIZER, faults.truncated, TOKENIZER_NOT_LOADED),
    "weights-cut": (
        "HEAD",
        "*/user/{}/*/model.safetensors",
        faults.unheard,
        "The connection to the Hub broke while model.safetensors of user/weights-cut was requested: Server disconnected",
    ),
    "weights-500": ("GET", WEIGHTS, faults.status(500), "There was a specific connection error when trying to load"),
    "weights-truncated": ("GET", WEIGHTS, faults.truncated, "Consistency check failed: file should be of size"),
}
"""By name of a repository: the request that fails once, how, and the error of `predict`. None if it predicts."""

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
    for name in ["classifier", "secret", "encoder", "unsure"]:
        attempt(f"audit {name}", lambda: command("audit", f"user/{name}"))
    os.environ["HF_TOKEN"] = TOKEN
    attempt("predict secret, token", lambda: predict("secret"))
    del os.environ["HF_TOKEN"]

    for name in FAULTY:
        attempt(name, lambda: predict(name))
        attempt(f"{name}, again", lambda: predict(name))

    for name in ["config-changed", "weights-changed"]:
        attempt(name, lambda: predict(name))
        attempt(f"{name}, again", lambda: predict(name))
    mismatches = huggingface_hub.HfApi().verify_repo_checksums("user/weights-changed").mismatches
    found["verify"] = [mismatch["path"] for mismatch in mismatches]
    load("weights-changed", force_download=True)
    attempt("weights-changed, repaired", lambda: predict("weights-changed"))
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
    settings = f"TOKEN = {hub.token!r}\nFAULTY = {list(FAULTY)}\n"
    return findings(hub, tmp_path_factory.mktemp("client"), settings, OUTPUTS, LOAD)


def assert_error(outcome, *words):
    """Check that a command ended with exit code 2, nothing on stdout, and one line on stderr."""
    code, out, err = outcome
    assert (code, out or None) == (2, None), outcome
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for word in words:
        assert word in err


def test_from_pretrained_loads_every_revision(found, published):
    assert found["config"] == "maskattn"
    for revision, which in {"main": 2, "v1": 0, "experiment": 1}.items():
        assert found[revision] == published.outputs[f"classifier-{which}"], revision


def test_from_pretrained_prefers_installed_class(found, published):
    assert found["trusted"] == "hf_maskattn.model.modeling_maskattn"
    assert published.hub.requests("*", "*/user/trusted/*/config.json")
    assert published.hub.requests("*", "*/user/trusted/*.py") == []


def test_predict_and_audit_of_hub_name(found):
    code, score, err = found["predict classifier"]
    assert (code, err) == (0, "")
    assert 0 < score < 1
    code, report, err = found["audit classifier"]
    assert (code, err) == (0, "")
    assert "MaskAttnForSequenceClassification" in report
    assert ": texts, " in report


def test_errors_are_one_line(found):
    for name in ("predict nothing", "predict secret", "audit secret"):
        assert_error(found[name], f"model 'user/{name.split()[1]}' " + NOT_LOADED, "hf auth login")
    assert_error(found["predict encoder"], "must be a model for one of the tasks", "got MaskAttnModel")
    assert_error(found["predict tagger"], "'user/tagger' could not be loaded as a tokenizer")


def test_predict_private_model_with_token(found):
    assert found["predict secret, token"] == found["predict classifier"]


def test_audit_without_tokenizer_only_if_there_is_none(found):
    code, report, _ = found["audit encoder"]
    assert code == 0
    assert ": random ids, " in report
    assert_error(found["audit unsure"], "There was a specific connection error when trying to load user/unsure")


@pytest.mark.parametrize("name", FAULTY)
def test_predict_on_fault_is_right_or_an_error(found, published, name):
    method, pattern, _, message = FAULTY[name]
    struck = [request for request in published.hub.requests(method, pattern.format(name)) if request.fault]
    assert len(struck) == 1
    if message is None:
        assert found[name] == found["predict classifier"]
    else:
        assert_error(found[name], message)
    assert found[f"{name}, again"] == found["predict classifier"]


def test_changed_content_of_right_size_stays_until_downloaded_again(found):
    for attempt in ("config-changed", "config-changed, again"):
        assert_error(found[attempt], "The config.json of user/config-changed is not valid: ")
    for attempt in ("weights-changed", "weights-changed, again"):
        code, score, _ = found[attempt]
        assert code == 0
        assert not math.isclose(score, found["predict classifier"][1])
    assert found["verify"] == ["model.safetensors"]
    assert found["weights-changed, repaired"] == found["predict classifier"]
