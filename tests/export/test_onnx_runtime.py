import logging
import sys

import numpy as np
import onnx
import pytest
import torch

from hf_maskattn.export.onnx_runtime import OnnxSession, quantize_onnx
from tests.masks import ragged_mask
from tests.tolerances import MANY_STEPS


def test_rows_without_columns_have_outputs(exported):
    nothing = np.zeros((2, 0), dtype=np.int64)
    _, path = exported("gru")
    logits, attentions = OnnxSession(path).run(nothing, nothing)
    assert (logits.shape, attentions.shape) == ((2, 0, 3), (2, 1, 1, 0))
    model, path = exported("lstm")
    logits, attentions = OnnxSession(path).run(nothing, nothing)
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(input_ids=torch.from_numpy(nothing)).logits.numpy(), atol=MANY_STEPS)
    assert attentions.shape == (2, 2, 1, 0)


def test_files_that_are_not_ours_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*model.onnx: write it with `hf-maskattn export MODEL"):
        OnnxSession(tmp_path / "model.onnx")
    (tmp_path / "text").write_text("no graph")
    with pytest.raises(ValueError, match="text cannot be read by onnxruntime: "):
        OnnxSession(tmp_path / "text")
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "g", value[:1], value[1:])
    opsets = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "other.onnx")
    with pytest.raises(ValueError, match=r"other.onnx has x where attention_mask, input_ids are expected: it was not written"):
        OnnxSession(tmp_path / "other.onnx")


def test_a_missing_onnxruntime_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for act in (lambda: OnnxSession(tmp_path / "a"), lambda: quantize_onnx(tmp_path / "a", tmp_path / "b")):
        with pytest.raises(ImportError, match=r'run by onnxruntime: pip install "hf-maskattn\[onnx\] @ git\+https'):
            act()


@pytest.mark.parametrize(
    ("case", "gone", "there"), [("lstm", "LSTM", "DynamicQuantizeLSTM"), ("gru", "DynamicQuantizeLSTM", "GRU")]
)
def test_8_bit_files_are_close_and_leave_no_weight_on_pads(exported, tmp_path, case, gone, there):
    _, path = exported(case)
    quantize_onnx(path, tmp_path / "int8.onnx")
    graph = onnx.load(tmp_path / "int8.onnx").graph
    operators = [node.op_type for node in graph.node]
    assert there in operators
    assert gone not in operators
    assert {"DequantizeLinear", "MatMulInteger"} <= set(operators)
    mask = ragged_mask(6, 12, "empty")
    batch = torch.randint(12, mask.shape).numpy(), mask.long().numpy()
    (logits, attentions), (expected, _) = OnnxSession(tmp_path / "int8.onnx").run(*batch), OnnxSession(path).run(*batch)
    np.testing.assert_allclose(logits, expected, atol=0.2 * np.abs(expected).max())
    assert not np.array_equal(logits, expected)
    assert not attentions[np.broadcast_to(~mask.numpy()[:, None, None], attentions.shape)].any()


def test_quantization_leaves_logging_as_it_was(exported, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    quantize_onnx(exported("lstm")[1], tmp_path / "int8.onnx")
    assert logging.getLogger().handlers == []
    assert capfd.readouterr() == ("", "")
