import json
import logging
import re
import tomllib
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModel

import hf_maskattn
from hf_maskattn.model import code_version
from hf_maskattn.model.code_version import CODE_VERSION, REPOSITORY, install_command, is_newer_than_this_code
from tests.heads import build_head


def test_the_files_that_travel_name_the_version_of_the_package():
    assert hf_maskattn.__version__ == CODE_VERSION


ROOT = Path(__file__).parents[2]


def test_the_repository_is_that_of_the_project():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"] == {"Repository": REPOSITORY}
    assert install_command() == f"pip install git+{REPOSITORY}"
    assert install_command(upgrade=True) == f"pip install --upgrade git+{REPOSITORY}"
    assert install_command("viz") == f'pip install "hf-maskattn[viz] @ git+{REPOSITORY}"'


def test_nothing_is_installed_by_a_name_that_is_not_ours():
    """The name of this package is not taken on PyPI: anybody may register it."""
    texts = [path for folder in ("hf_maskattn", "examples", "configs", "docs") for path in (ROOT / folder).rglob("*.*")]
    for path in [ROOT / "README.md", *texts]:
        if path.suffix in (".py", ".md", ".yaml"):
            found = re.findall(r"(?:pip3? install|uv add) [^\n`&]*hf-maskattn[^\n`&]*", path.read_text(encoding="utf-8"))
            assert [line for line in found if "git+" not in line] == [], path


@pytest.mark.parametrize("version", ["0.1.1", "0.2.0", "1.0.0", "0.10.0", "0.1.1.dev3", "99999.0.0"])
def test_newer_code(version, monkeypatch):
    monkeypatch.setattr(code_version, "CODE_VERSION", "0.1.0")
    assert is_newer_than_this_code(version)


@pytest.mark.parametrize("version", [None, "0.1.0", "0.0.9", "0.1.0rc1"])
def test_the_same_or_older_code(version, monkeypatch):
    monkeypatch.setattr(code_version, "CODE_VERSION", "0.1.0")
    assert not is_newer_than_this_code(version)


@pytest.fixture
def load(tmp_path, tiny_config, caplog):
    """Loads a model whose `config.json` has a stamp, and returns what was logged."""
    build_head("MaskAttnModel", tiny_config).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["code_version"] == CODE_VERSION

    def with_stamp(stamp):
        (tmp_path / "config.json").write_text(json.dumps(config | {"code_version": stamp}))
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="hf_maskattn.model.code_version"):
            AutoModel.from_pretrained(tmp_path)
        return [record.getMessage() for record in caplog.records if record.name == "hf_maskattn.model.code_version"]

    return with_stamp


def test_a_model_saved_by_newer_code_loads_with_a_warning(load):
    assert load("99.1.0") == [
        f"This model was saved by hf_maskattn 99.1.0, and is loaded by {CODE_VERSION}: its results may differ. "
        "To upgrade: pip install --upgrade git+https://github.com/hf-maskattn/hf-maskattn"
    ]


@pytest.mark.parametrize("stamp", [CODE_VERSION, "0.0.1", None])
def test_a_model_saved_by_the_same_or_older_code_loads_in_silence(load, stamp):
    assert load(stamp) == []


@pytest.mark.parametrize("stamp", ["", "new", "1.2", 3, [1, 2, 3], {"a": 1}, "9" * 6000 + ".0.0"])
def test_a_stamp_that_is_no_version_is_told_and_the_model_loads(load, stamp):
    (message,) = load(stamp)
    assert message.startswith("Whether this model was saved by newer code is not known: code_version=")
    assert len(message) < 250


def test_a_model_that_is_saved_again_names_the_code_that_saved_it(tmp_path, tiny_config):
    model = build_head("MaskAttnModel", tiny_config)
    model.config.code_version = "0.0.1"
    model.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).code_version == CODE_VERSION
