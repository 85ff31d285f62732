import pytest
import typer

from hf_maskattn.cli.endings import MISTAKE, told_in_one_line


@pytest.mark.parametrize("error", [ValueError, TypeError, FileNotFoundError, ImportError])
def test_a_mistake_is_told_in_one_line(capsys, error):
    with pytest.raises(typer.Exit) as end, told_in_one_line():
        raise error("there is no such model\n  Log in with `hf auth login`\n\n")
    assert end.value.exit_code == MISTAKE
    assert capsys.readouterr().err == "error: there is no such model Log in with `hf auth login`\n"


def test_a_defect_is_not_hidden():
    with pytest.raises(KeyError), told_in_one_line():
        raise KeyError("defect")
