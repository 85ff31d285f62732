import pytest
from transformers.utils.logging import disable_progress_bar, enable_progress_bar
from typer.testing import CliRunner

from hf_maskattn.cli import app


@pytest.fixture(autouse=True, scope="package")
def _fast_quiet_commands():
    """Skips the picture of the card, which takes longer than a toy run, progress bars, and the log handler of commands.

    The handler writes to the captured stderr of a test, which does not outlive it.
    """
    disable_progress_bar()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_maskattn.training.results.draw_picture", lambda *args: False)
        patch.setattr("hf_maskattn.training.error_analysis.ConfusionMatrix.draw", lambda *args: None)
        patch.setattr("hf_maskattn.cli.console.show_messages", lambda: None)
        yield
    enable_progress_bar()


def run(*arguments, stdin=None):
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin, env={"COLUMNS": "200"})


def assert_error(result, message):
    """Check that a command ended with exit code 2 and an error in one line."""
    assert result.exit_code == 2, (message, result.stderr)
    assert result.stderr.startswith("error: "), result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
