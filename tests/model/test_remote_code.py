import json
import logging
import os
import re
import tomllib
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModel

import hf_maskattn
from hf_maskattn.model import remote_code
from hf_maskattn.model.remote_code import (
    CODE_VERSION,
    REPOSITORY,
    install_command,
    is_newer_version,
    move_code_above_checkpoint,
)
from tests.heads import build_head


@pytest.fixture
def model(tiny_config):
    return build_head("MaskAttnModel", tiny_config)


def code_in(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.py")}


@pytest.mark.parametrize("settings", [{"is_main_process": True}, {}], ids=["transformers 5.23", "transformers 5.22"])
def test_checkpoint_code_is_moved_above_checkpoint(model, tmp_path, settings):
    model.save_pretrained(tmp_path / "model")
    for step in (20, 40):
        checkpoint = tmp_path / f"checkpoint-{step}"
        model.save_pretrained(checkpoint, state_dict=model.state_dict(), **settings)
        assert code_in(checkpoint) == {}
        assert code_in(tmp_path) == code_in(tmp_path / "model")
        assert type(AutoModel.from_pretrained(checkpoint)) is type(model)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("checkpoint-20", {}), ("model", {"is_main_process": True}), ("checkpoint-x", {"is_main_process": True})],
)
def test_code_is_moved_above_trainer_checkpoints_only(model, tmp_path, name, settings):
    model.save_pretrained(tmp_path / name, **settings)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_other_processes_move_nothing(model, tmp_path):
    model.save_pretrained(tmp_path / "checkpoint-20", is_main_process=False)
    assert code_in(tmp_path) == {}


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint with one file of code, and above it another file of this name."""
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    (folder / "losses.py").write_text("ours")
    (tmp_path / "losses.py").write_text("theirs")
    return folder


AUTO_MAP = {"AutoConfig": "configuration_maskattn.MaskAttnConfig", "AutoModel": "modeling_maskattn.MaskAttnModel"}


def test_equal_file_is_not_written(checkpoint, tmp_path):
    (tmp_path / "losses.py").write_text("ours")
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": AUTO_MAP}))
    os.utime(tmp_path / "losses.py", ns=(1, 1))
    move_code_above_checkpoint(checkpoint, AUTO_MAP)
    assert (tmp_path / "losses.py").stat().st_mtime_ns == 1


def test_earlier_code_is_replaced(checkpoint, tmp_path):
    earlier = {"AutoConfig": AUTO_MAP["AutoConfig"]}  # it had fewer classes
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": earlier}))
    move_code_above_checkpoint(checkpoint, AUTO_MAP)
    assert code_in(tmp_path) == {"losses.py": b"ours"}


@pytest.mark.parametrize(
    "config",
    [None, "{", "[]", "{}", '{"auto_map": null}', '{"auto_map": {}}', '{"auto_map": {"AutoConfig": "configuration_my.My"}}'],
)
def test_foreign_file_is_kept_with_a_warning(checkpoint, tmp_path, config, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    remote_code.logger.warning_once.cache_clear()
    (checkpoint / "decoder.py").write_text("ours")
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    for _ in range(2):
        move_code_above_checkpoint(checkpoint, AUTO_MAP)
    assert code_in(tmp_path) == {"decoder.py": b"ours", "losses.py": b"theirs"}
    (record,) = caplog.records
    assert f"{tmp_path / 'losses.py'} differs from the code of the model" in record.getMessage()


def test_save_pretrained_keeps_foreign_file_above(model, tmp_path):
    (tmp_path / "attention.py").write_text("theirs")
    model.save_pretrained(tmp_path / "checkpoint-20", is_main_process=True)
    assert code_in(tmp_path)["attention.py"] == b"theirs"
    assert list(code_in(tmp_path / "checkpoint-20")) == ["attention.py"]
    model.save_pretrained(tmp_path)
    code = code_in(tmp_path)
    (tmp_path / "attention.py").write_text("earlier")
    model.save_pretrained(tmp_path / "checkpoint-20", is_main_process=True)
    assert code_in(tmp_path) == code


def test_code_version_is_package_version():
    assert hf_maskattn.__version__ == CODE_VERSION


ROOT = Path(__file__).parents[2]


def test_install_command():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"] == REPOSITORY
    assert install_command() == f"pip install git+{REPOSITORY}"
    assert install_command(upgrade=True) == f"pip install --upgrade git+{REPOSITORY}"
    assert install_command("viz") == f'pip install "hf-maskattn[viz] @ git+{REPOSITORY}"'


def test_no_install_command_uses_unowned_name():
    """The name of this package is not registered on PyPI, so that others could register it."""
    texts = [path for folder in ("hf_maskattn", "examples", "configs", "docs") for path in (ROOT / folder).rglob("*.*")]
    for path in [ROOT / "README.md", *texts]:
        if path.suffix in (".py", ".md", ".yaml"):
            commands = re.findall(r"(?:pip3? install|uv add) [^\n`&]*hf-maskattn[^\n`&]*", path.read_text(encoding="utf-8"))
            assert [line for line in commands if "git+" not in line] == [], path


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        *((version, True) for version in ("0.1.1", "0.2.0", "1.0.0", "0.10.0", "0.1.1.dev3", "99999.0.0")),
        *((version, False) for version in (None, "0.1.0", "0.0.9", "0.1.0rc1")),
    ],
)
def test_is_newer_version(version, expected, monkeypatch):
    monkeypatch.setattr(remote_code, "CODE_VERSION", "0.1.0")
    assert is_newer_version(version) is expected


@pytest.fixture
def load(tmp_path, tiny_config, caplog):
    """Load a model whose `config.json` has a code_version, and return what was logged."""
    build_head("MaskAttnModel", tiny_config).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["code_version"] == CODE_VERSION

    def load_with_version(version):
        (tmp_path / "config.json").write_text(json.dumps(config | {"code_version": version}))
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="hf_maskattn.model.remote_code"):
            AutoModel.from_pretrained(tmp_path)
        return [record.getMessage() for record in caplog.records if record.name == "hf_maskattn.model.remote_code"]

    return load_with_version


def test_model_of_newer_code_loads_with_a_warning(load):
    assert load("99.1.0") == [
        f"This model was saved by hf_maskattn 99.1.0 and is loaded by {CODE_VERSION}. Its results may differ. "
        "To upgrade: pip install --upgrade git+https://github.com/hf-maskattn/hf-maskattn"
    ]


@pytest.mark.parametrize("version", [CODE_VERSION, "0.0.1", None])
def test_model_of_same_or_older_code_loads_silently(load, version):
    assert load(version) == []


@pytest.mark.parametrize("version", ["", "new", "1.2", 3, [1, 2, 3], {"a": 1}, "9" * 6000 + ".0.0"])
def test_model_with_invalid_code_version_loads(load, version):
    (message,) = load(version)
    assert message.startswith("The version of this model is unknown: code_version must be a version")
    assert len(message) < 250


def test_save_pretrained_updates_code_version(tmp_path, tiny_config):
    model = build_head("MaskAttnModel", tiny_config)
    model.config.code_version = "0.0.1"
    model.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).code_version == CODE_VERSION
