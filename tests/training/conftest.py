import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Toy models are far faster without threads that wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _no_pictures():
    """Runs are many here, and drawing the picture of the card takes longer than a toy run; it has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_maskattn.training.run_card.draw_picture", lambda *args: False)
        yield
