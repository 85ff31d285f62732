import copy

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing

from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.onnx.check import check_onnx, compare_predictions
from hf_maskattn.onnx.runtime import OnnxSession


def test_check_onnx_passes_at_five_shapes(exported):
    checks = check_onnx(*exported("lstm"))
    assert [check.padding for check in checks] == ["one token", "right padding", "left padding", "holes", "an empty row"]
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
def test_check_onnx_rejects_other_weights(exported, name, value):
    model, path = exported("lstm")
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.get_parameter(name)[0] += value
    with pytest.raises(ValueError, match=r"The ONNX file differs from the model at . x \d+ tokens with"):
        check_onnx(other, path)


def test_check_onnx_rejects_file_that_reads_padding(exported, monkeypatch):
    model, path = exported("gru")

    def run_without_mask(self, ids, mask):
        return self._session.run(None, {"input_ids": ids.clip(0), "attention_mask": mask * 0 + 1})

    monkeypatch.setattr(OnnxSession, "run", run_without_mask)
    with pytest.raises(ValueError, match="at 2 x 130 tokens with right padding"):
        check_onnx(model, path)


TEXTS = ["a", "a b", "a b c"]


class Fixed:
    """A session that returns given logits, whatever its inputs are."""

    def __init__(self, *batches):
        self.batches = iter(batches)

    def run(self, ids, mask):
        assert ids.dtype == mask.dtype == np.int64
        return np.array(next(self.batches), dtype=np.float32), None


@pytest.fixture
def compare(tiny_config):
    """Compare logits for the three texts, in batches of two."""
    tokenizer = train_tokenizer(TEXTS, kind="word", vocab_size=20, max_length=8)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[UNK] $A", special_tokens=[("[UNK]", tokenizer.unk_token_id)]
    )

    def run(one, other, **config):
        found = compare_predictions(Fixed(*one), Fixed(*other), tokenizer, tiny_config(**config), TEXTS, batch_size=2)
        return found.predictions, found.equal, found.difference

    return run


@pytest.mark.parametrize(
    ("one", "other", "config", "expected"),
    [
        ([[[1, 2], [2, 1]], [[0, 1]]], [[[1, 5], [1, 2]], [[0, 1]]], {"num_labels": 2}, (3, 2, 3)),
        (
            [[[1, 2], [-2, 1]], [[-1, 1]]],
            [[[1, 2], [-2, -1]], [[2, 1]]],
            {"num_labels": 2, "problem_type": "multi_label_classification"},
            (6, 4, 3),
        ),
        ([[[1], [2]], [[3]]], [[[1], [2]], [[3.5]]], {"num_labels": 1, "problem_type": "regression"}, (0, 0, 0.5)),
    ],
)
def test_compare_predictions_of_each_problem(compare, one, other, config, expected):
    assert compare(one, other, **config) == expected


def test_compare_predictions_ignores_padding_and_special_tokens(compare):
    # Rows: [UNK] a [PAD], [UNK] a b, then [UNK] a b c.
    one = [np.zeros((2, 3, 2)), np.zeros((1, 4, 2))]
    other = [batch.copy() for batch in one]
    other[0][:, 0, 1] = other[1][:, 0, 1] = other[0][0, 2, 1] = 9
    other[0][0, 1, 1] = 1
    assert compare(one, other, num_labels=2) == (6, 5, 1)
