import pytest
import torch

from hf_maskattn.benchmark import baselines, training
from hf_maskattn.benchmark.measurement import Setting


@pytest.fixture
def setting():
    """A quick setting with the lengths of a made-up corpus."""
    return Setting(torch.device("cpu"), [1 + index % 9 for index in range(4000)], quick=True, seconds=0.01)


@pytest.fixture
def small(monkeypatch):
    """A small classifier and small training batches."""
    monkeypatch.setattr(baselines, "CLASSIFIER", {**baselines.CLASSIFIER, "embedding_size": 6, "hidden_size": 8})
    monkeypatch.setattr(training, "BATCH_SIZE", 4)


def values(row):
    """The values of a row by the names of its implementations."""
    return {name: outcome.value for name, outcome in row.outcomes.items()}
