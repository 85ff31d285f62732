"""Law: a token that was put in a wrong place is not repeated by what is said about it."""

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
def test_one_that_was_put_on_the_command_line_is_not_said_again(override, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_maskattn.cli.errors.show_messages", lambda: None)
    arguments = ["train", str(write_recipe(tmp_path)), override.format(token="hf_sEcReT")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert len(done.stderr) > 20
    assert "hf_sEcReT" not in done.output


@pytest.mark.parametrize("line", ["training: hub_token={token}", "hub_token: {token}", "training: {{hub_token: {token}}}"])
def test_one_that_was_put_in_a_recipe_is_not_said_again(line, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_maskattn.cli.errors.show_messages", lambda: None)
    (tmp_path / "recipe.yaml").write_text(line.format(token="hf_sEcReT"))
    done = CliRunner().invoke(app, ["train", str(tmp_path / "recipe.yaml")])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert "hf_sEcReT" not in done.output
