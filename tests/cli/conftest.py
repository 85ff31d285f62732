import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Toy models are far faster without threads that wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
