import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from hf_maskattn.loading.weight_shapes import in_one_line, in_short, weight_shapes


@pytest.fixture
def folder(tmp_path):
    save_file({"a": torch.zeros(3, 2), "b": torch.ones(4)}, tmp_path / "model.safetensors")
    return tmp_path


def test_shapes_are_read_by_name(folder):
    assert weight_shapes(folder) == {"a": (3, 2), "b": (4,)}
    assert in_short(weight_shapes(str(folder))) == "10 parameters in 2 tensors, none wider than 4"
    assert in_short({}) == "0 parameters in 0 tensors, none wider than 0"


def test_weights_in_several_files_are_read_together(folder):
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    save_file({"c": torch.zeros(5)}, folder / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weight_shapes(folder) == {"a": (3, 2), "b": (4,), "c": (5,)}
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no model-2\.safetensors, which its model\.safetensors\.index\.json names"):
        weight_shapes(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 5}', '{"weight_map": {"a": 5}}', "[" * 99999])
def test_a_broken_index_is_refused(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match=r"index\.json is no index of weights: "):
        weight_shapes(tmp_path)


@pytest.mark.parametrize("share", [0, 0.1, 0.7, 0.99])
def test_a_file_that_is_cut_off_is_refused(folder, share):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"model\.safetensors is no whole safetensors file: \w"):
        weight_shapes(folder)


@pytest.mark.parametrize("content", [pickle.dumps({}), b"\xff" * 100, (2**60).to_bytes(8, "little") + b"{}", b"PK\x03\x04"])
def test_a_file_of_another_kind_is_refused(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="is no whole safetensors file"):
        weight_shapes(folder)


def test_a_pickle_is_not_read_and_the_way_out_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"has no model\.safetensors\. Have whoever made the model save it with save"):
        weight_shapes(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is not read: it may run any code\. Have whoever"):
        weight_shapes(tmp_path)


def test_errors_are_told_in_one_line():
    assert in_one_line(ValueError("one\n  two.")) == "one two"
    assert in_one_line(KeyError("name")) == "KeyError: 'name'"
    assert in_one_line(ValueError()) == "ValueError: "


def test_weights_that_cannot_be_asked_for_are_not_called_missing():
    with pytest.raises(OSError, match="We couldn't connect to"):
        weight_shapes("owner/name")
