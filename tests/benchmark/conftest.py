import pytest
import torch

from hf_maskattn.benchmark.plan import Setting


@pytest.fixture
def setting():
    """A quick setting over a made-up corpus."""
    return Setting(torch.device("cpu"), [1 + index % 9 for index in range(4000)], quick=True, seconds=0.01)


@pytest.fixture
def values():
    """Reads the values of a row by the names of its ways."""
    return lambda row: {name: outcome.value for name, outcome in row.outcomes.items()}
