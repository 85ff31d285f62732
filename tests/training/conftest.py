import signal
from functools import partial

import pytest

from hf_maskattn.training import train as train_module
from tests.distributed.run_commands import AtStep
from tests.training.teachers import save_teacher


@pytest.fixture(autouse=True, scope="package")
def _no_pictures():
    """Draw no pictures for model cards, which would take longer than a toy run. test_results.py tests them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_maskattn.training.results.draw_picture", lambda *args: False)
        patch.setattr("hf_maskattn.training.error_analysis.ConfusionMatrix.draw", lambda *args: None)
        yield


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the outputs of teachers."""
    monkeypatch.setattr("hf_maskattn.data.cache.HF_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hf_maskattn"


@pytest.fixture(scope="session")
def pet_teacher(tmp_path_factory):
    """The folder of a teacher of "dog" and "cat", in this order; toy recipes have them in the other order."""
    return save_teacher(tmp_path_factory.mktemp("pets"), ["dog", "cat"], problem_type="single_label_classification")


@pytest.fixture
def interrupt_at(monkeypatch):
    """Sends SIGINT to this process at the beginning of a step, counted from 1."""

    def arrange(step):
        monkeypatch.setattr(train_module, "KeepTrackOfBest", partial(AtStep, "interrupt", step, 0))

    yield arrange
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
