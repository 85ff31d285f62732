import pytest


@pytest.fixture(autouse=True, scope="package")
def _fast_quiet_commands():
    """Skips the picture of the card, which takes longer than a toy run, and the log handler of commands.

    The handler writes to the captured stderr of a test, which does not outlive it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_maskattn.training.results.draw_picture", lambda *args: False)
        patch.setattr("hf_maskattn.training.error_analysis.ConfusionMatrix.draw", lambda *args: None)
        patch.setattr("hf_maskattn.cli.console.show_messages", lambda: None)
        yield
