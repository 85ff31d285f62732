"""A token that was put in a wrong place is not repeated in the error."""

import pytest
from typer.testing import CliRunner

from hf_maskattn.cli import app
from tests.training.toy_recipe import write_recipe


@pytest.mark.parametrize(
    "override",
    [
        "training.hub_token={token}",
        "training.push_to_hub_token={token}",
        "training.hub_tokens={token}",
        "training.hub_token=[{token}",
        "model.hub_token={token}",
        "hub_token={token}",
        "training={token}",
        "training.hub_token:{token}",
        "{token}",
        "--training.hub_token={token}",
    ],
)
def test_error_does_not_repeat_token_of_command_line(override, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_maskattn.cli.console.show_messages", lambda: None)
    arguments = ["train", str(write_recipe(tmp_path)), override.format(token="hf_sEcReT")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert len(done.stderr) > 20
    assert "hf_sEcReT" not in done.output


@pytest.mark.parametrize("line", ["training: hub_token={token}", "hub_token: {token}", "training: {{hub_token: {token}}}"])
def test_error_does_not_repeat_token_of_recipe(line, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_maskattn.cli.console.show_messages", lambda: None)
    (tmp_path / "recipe.yaml").write_text(line.format(token="hf_sEcReT"))
    done = CliRunner().invoke(app, ["train", str(tmp_path / "recipe.yaml")])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert "hf_sEcReT" not in done.output
