import json
import logging
import os

import pytest

from hf_maskattn.model import checkpoint_code
from hf_maskattn.model.checkpoint_code import carry_code_above_checkpoint
from tests.heads import build_head


@pytest.fixture
def model(tiny_config):
    return build_head("MaskAttnModel", tiny_config)


def code_in(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.py")}


def test_the_code_of_a_checkpoint_of_trainer_lies_also_above_it(model, tmp_path):
    model.save_pretrained(tmp_path / "checkpoint-20", state_dict=model.state_dict(), is_main_process=True)
    assert code_in(tmp_path) == code_in(tmp_path / "checkpoint-20")
    assert "modeling_maskattn.py" in code_in(tmp_path)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("checkpoint-20", {}), ("model", {"is_main_process": True}), ("checkpoint-x", {"is_main_process": True})],
)
def test_any_other_folder_is_all_that_is_written_to(model, tmp_path, name, settings):
    model.save_pretrained(tmp_path / name, **settings)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_other_processes_write_nothing(model, tmp_path):
    model.save_pretrained(tmp_path / "checkpoint-20", is_main_process=False)
    assert code_in(tmp_path) == {}


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint with one file of code, which carries the name of another file above it."""
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    (folder / "losses.py").write_text("ours")
    (tmp_path / "losses.py").write_text("theirs")
    return folder


AUTO_MAP = {"AutoConfig": "configuration_maskattn.MaskAttnConfig", "AutoModel": "modeling_maskattn.MaskAttnModel"}


def test_a_file_that_is_the_same_is_not_touched_as_it_may_be_on_its_way_to_the_hub(checkpoint, tmp_path):
    (tmp_path / "losses.py").write_text("ours")
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": AUTO_MAP}))
    os.utime(tmp_path / "losses.py", ns=(1, 1))
    carry_code_above_checkpoint(checkpoint, AUTO_MAP)
    assert (tmp_path / "losses.py").stat().st_mtime_ns == 1


def test_earlier_code_of_ours_is_replaced(checkpoint, tmp_path):
    earlier = {"AutoConfig": AUTO_MAP["AutoConfig"]}  # it had fewer classes
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": earlier}))
    carry_code_above_checkpoint(checkpoint, AUTO_MAP)
    assert code_in(tmp_path) == {"losses.py": b"ours"}


@pytest.mark.parametrize(
    "config",
    [None, "{", "[]", "{}", '{"auto_map": null}', '{"auto_map": {}}', '{"auto_map": {"AutoConfig": "configuration_my.My"}}'],
)
def test_a_file_of_somebody_else_stays_and_the_log_names_it(checkpoint, tmp_path, config, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    checkpoint_code.logger.warning_once.cache_clear()
    (checkpoint / "decoder.py").write_text("ours")
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    for _ in range(2):
        carry_code_above_checkpoint(checkpoint, AUTO_MAP)
    assert code_in(tmp_path) == {"decoder.py": b"ours", "losses.py": b"theirs"}
    (record,) = caplog.records
    assert f"{tmp_path / 'losses.py'} is left as it is" in record.getMessage()


def test_a_model_that_is_saved_as_a_checkpoint_takes_nothing_from_the_folder_above(model, tmp_path):
    (tmp_path / "attention.py").write_text("theirs")
    model.save_pretrained(tmp_path / "checkpoint-20", is_main_process=True)
    assert code_in(tmp_path)["attention.py"] == b"theirs"
    model.save_pretrained(tmp_path)
    (tmp_path / "attention.py").write_text("earlier")
    model.save_pretrained(tmp_path / "checkpoint-20", is_main_process=True)
    assert code_in(tmp_path) == code_in(tmp_path / "checkpoint-20")
