import pytest


@pytest.fixture(autouse=True, scope="package")
def _no_pictures():
    """Draw no pictures for model cards, which would take longer than a toy run. test_results.py tests them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_maskattn.training.results.draw_picture", lambda *args: False)
        yield
