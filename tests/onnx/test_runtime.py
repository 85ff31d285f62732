import logging
import sys
from itertools import pairwise

import numpy as np
import onnx
import pytest
import torch
from transformers import TextClassificationPipeline

from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.onnx.runtime import OnnxSession, describe_model, onnx_pipeline, quantize_onnx
from tests.masks import ragged_mask
from tests.tolerances import MANY_STEPS


@pytest.mark.slow
def test_session_tags_zero_columns(exported):
    nothing = np.zeros((2, 0), dtype=np.int64)
    _, path = exported("gru")
    logits, attentions = OnnxSession(path).run(nothing, nothing)
    assert (logits.shape, attentions.shape) == ((2, 0, 3), (2, 1, 1, 0))


def test_session_classifies_zero_columns(exported):
    nothing = np.zeros((2, 0), dtype=np.int64)
    model, path = exported("lstm")
    logits, attentions = OnnxSession(path).run(nothing, nothing)
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(input_ids=torch.from_numpy(nothing)).logits.numpy(), atol=MANY_STEPS)
    assert attentions.shape == (2, 2, 1, 0)


def test_session_rejects_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model.onnx does not exist\. Create it with `hf-maskattn export MODEL"):
        OnnxSession(str(tmp_path / "model.onnx"))
    (tmp_path / "text").write_text("no graph")
    with pytest.raises(ValueError, match="text could not be loaded by onnxruntime: "):
        OnnxSession(tmp_path / "text")
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "g", value[:1], value[1:])
    opsets = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "other.onnx")
    with pytest.raises(ValueError, match=r"must have attention_mask, input_ids, got x\. Use a file that was written"):
        OnnxSession(tmp_path / "other.onnx")


def test_missing_onnxruntime_raises_with_install_command(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for act in (lambda: OnnxSession(tmp_path / "a"), lambda: quantize_onnx(tmp_path / "a", tmp_path / "b")):
        with pytest.raises(ImportError, match=r'need onnxruntime\. Install it: pip install "hf-maskattn\[onnx\] @ git\+https'):
            act()


@pytest.mark.parametrize(
    ("case", "gone", "there"), [("lstm", "LSTM", "DynamicQuantizeLSTM"), ("gru", "DynamicQuantizeLSTM", "GRU")]
)
def test_quantize_onnx_is_close_and_ignores_padding(exported, tmp_path, case, gone, there):
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


@pytest.mark.slow
def test_quantized_crf_follows_its_scheme(exported, tmp_path):
    _, path = exported("crf")
    quantize_onnx(path, tmp_path / "int8.onnx")
    mask = ragged_mask(6, 12, "holes")
    batch = torch.randint(12, mask.shape).numpy(), mask.long().numpy()
    (logits, _), (expected, _) = OnnxSession(tmp_path / "int8.onnx").run(*batch), OnnxSession(path).run(*batch)
    assert not np.array_equal(logits, expected)
    for row, path in enumerate(logits.argmax(-1)):
        labels = [0, *path[mask[row].numpy()]]
        assert all(label != 2 or previous in (1, 2) for previous, label in pairwise(labels))


def test_quantize_onnx_does_not_change_logging(exported, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    quantize_onnx(exported("lstm")[1], tmp_path / "int8.onnx")
    assert logging.getLogger().handlers == []
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def tokenizer():
    return train_tokenizer(["abc"], kind="char", vocab_size=12, max_length=16)


def test_onnx_pipeline_equals_pipeline(exported, tokenizer):
    model, path = exported("lstm")
    expected = TextClassificationPipeline(model=model, tokenizer=tokenizer, device=-1)(["abc", "b"], top_k=None)
    found = onnx_pipeline("text-classification", path, model.config, tokenizer)(["abc", "b"], top_k=None, batch_size=2)
    assert len(found) == 2
    for one, other in zip(found, expected, strict=True):
        assert [item["label"] for item in one] == [item["label"] for item in other]
        assert [item["score"] for item in one] == pytest.approx([item["score"] for item in other], abs=MANY_STEPS)


def test_onnx_pipeline_rejects_other_tasks(exported, tokenizer):
    model, path = exported("lstm")
    message = "must be text-classification or token-classification or joint-classification, got fill-mask"
    with pytest.raises(ValueError, match=message):
        onnx_pipeline("fill-mask", path, model.config, tokenizer)


def test_onnx_pipeline_rejects_file_of_other_model(exported, tokenizer, tiny_config):
    model, path = exported("lstm")
    words = r"model.onnx must have shape \['batch', {}\] for {}, got \['batch', 3\]\. Use the file that was"
    with pytest.raises(ValueError, match=words.format(2, "text-classification")):
        onnx_pipeline("text-classification", path, tiny_config(num_labels=2), tokenizer)
    with pytest.raises(ValueError, match=words.format("'time', 3", "token-classification")):
        onnx_pipeline("token-classification", path, model.config, tokenizer)


def test_onnx_pipeline_rejects_other_vocabulary_and_labels(exported, tokenizer, tiny_config, tmp_path):
    model, path = exported("lstm")
    size, names = model.config.vocab_size, ["x", "y", "z"]
    for config in (
        tiny_config(num_labels=3, vocab_size=size + 1),
        tiny_config(id2label=dict(enumerate(names)), vocab_size=size),
    ):
        message = r"must have the vocabulary and the labels of this model, .* exported from this model"
        with pytest.raises(ValueError, match=message):
            onnx_pipeline("text-classification", path, config, tokenizer)
    earlier = onnx.load(path)
    del earlier.metadata_props[:]
    onnx.save(earlier, tmp_path / "earlier.onnx")
    onnx_pipeline("text-classification", tmp_path / "earlier.onnx", model.config, tokenizer)
    ids = np.full((1, 2), size + 1)
    with pytest.raises(ValueError, match=rf"earlier.onnx could not be run for 1 x 2 ids of at most {size + 1}: "):
        OnnxSession(tmp_path / "earlier.onnx").run(ids, np.ones_like(ids))


def test_quantized_file_keeps_the_description_of_its_model(exported, tmp_path):
    model, path = exported("lstm")
    quantize_onnx(path, tmp_path / "int8.onnx")
    assert OnnxSession(tmp_path / "int8.onnx").model_description == describe_model(model.config)


def test_session_rejects_no_rows(exported):
    nothing = np.zeros((0, 2), dtype=np.int64)
    with pytest.raises(ValueError, match="`input_ids` must have at least one row, got none"):
        OnnxSession(exported("lstm")[1]).run(nothing, nothing)
