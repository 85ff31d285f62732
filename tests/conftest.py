import os
import signal
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from huggingface_hub import close_session, constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
from hypothesis import HealthCheck, settings

import hf_maskattn
from tests.hub.server import Hub
from tests.onnx_cases import export_case

# A second thread makes operations on tiny tensors slower. TEST_THREADS=2 tests that results do not depend on it.
torch.set_num_threads(int(os.environ.get("TEST_THREADS", "1")))

# Shells let background commands ignore Ctrl-C, which some tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "default", max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("deep", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


SIZES = {
    "vocab_size": 40,
    "embedding_size": 6,
    "hidden_size": 8,
    "attention_size": 8,
    "hidden_dropout_prob": 0.0,
    "embedding_dropout_prob": 0.0,
}


@pytest.fixture
def tiny_config():
    """Builds configurations of small models, by default without dropout."""
    return lambda **changes: hf_maskattn.MaskAttnConfig(**{**SIZES, "num_hidden_layers": 1, **changes})


@pytest.fixture
def tiny_rnnsearch_config():
    """Builds configurations of small encoder-decoders, by default without dropout."""
    return lambda **changes: hf_maskattn.RNNSearchConfig(**{**SIZES, "decoder_hidden_size": 10, **changes})


@pytest.fixture
def hub():
    """An empty Hub on this machine; see `tests/hub/server.py`, and `run_client` for a client."""
    with Hub() as running:
        yield running


@pytest.fixture
def connected(hub, monkeypatch):
    """Connects this process to the loopback Hub."""
    settings = {"ENDPOINT": hub.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True, "HF_HUB_DISABLE_TELEMETRY": True}
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setenv("NO_PROXY", "*")
    # What huggingface_hub 2.4 does while it uploads large files.
    warnings.filterwarnings("ignore", "Use 'content=", DeprecationWarning)
    close_session()
    disable_progress_bars()
    yield hub
    enable_progress_bars()
    close_session()


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Exports each case of `tests/onnx_cases.py` once; returns its model and its file."""
    cases = {}

    def get(name):
        if name not in cases:
            path = tmp_path_factory.mktemp("onnx") / "model.onnx"
            cases[name] = export_case(name, path), path
        return cases[name]

    return get
