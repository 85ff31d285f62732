import copy

import pytest
import torch

from hf_maskattn.export.onnx_check import check_onnx
from hf_maskattn.export.onnx_runtime import OnnxSession


def test_a_sound_file_is_close_at_five_shapes(exported):
    checks = check_onnx(*exported("lstm"))
    assert [check.arrangement for check in checks] == ["one token", "right padding", "left padding", "holes", "an empty row"]
    assert all(check.logits <= 1e-5 and check.attentions <= 1e-5 for check in checks)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("maskattn.recurrence.layers.1.backward_rnn.bias_hh_l0", 1.0),
        ("maskattn.pooling.attention.energy", 0.3),
        ("classifier.bias", 1e-3),
        ("classifier.bias", torch.nan),
    ],
)
def test_a_file_of_other_weights_is_refused(exported, name, value):
    model, path = exported("lstm")
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.get_parameter(name)[0] += value
    with pytest.raises(ValueError, match=r"the ONNX file is not equal to the model at . x \d+ tokens with"):
        check_onnx(other, path)


def test_a_file_that_reads_pads_is_refused(exported, monkeypatch):
    model, path = exported("gru")
    monkeypatch.setattr(OnnxSession, "run", lambda self, ids, mask: self._session.run(None, _all_real(ids, mask)))
    with pytest.raises(ValueError, match="at 2 x 130 tokens with right padding"):
        check_onnx(model, path)


def _all_real(ids, mask):
    return {"input_ids": ids.clip(0), "attention_mask": mask * 0 + 1}
