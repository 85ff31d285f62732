import os

import pytest

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


def test_a_file_that_is_the_same_is_not_touched_as_it_may_be_on_its_way_to_the_hub(tmp_path):
    (tmp_path / "checkpoint-1").mkdir()
    for name, above in {"same.py": "a", "other.py": "b"}.items():
        (tmp_path / "checkpoint-1" / name).write_text("a")
        (tmp_path / name).write_text(above)
        os.utime(tmp_path / name, ns=(1, 1))
    carry_code_above_checkpoint(tmp_path / "checkpoint-1")
    assert (tmp_path / "same.py").stat().st_mtime_ns == 1
    assert (tmp_path / "other.py").read_text() == "a"
    assert (tmp_path / "other.py").stat().st_mtime_ns != 1
