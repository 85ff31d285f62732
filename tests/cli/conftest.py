import pytest


@pytest.fixture(autouse=True, scope="package")
def _no_pictures():
    """Runs are many here, and drawing the picture of the card takes longer than a toy run; it has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_maskattn.training.results.draw_picture", lambda *args: False)
        yield
