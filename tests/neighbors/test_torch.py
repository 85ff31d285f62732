"""torch: common operations on any module."""

from copy import deepcopy

import pytest
import torch

from tests.heads import build_head
from tests.tolerances import OUTPUT, OUTPUT_BY_DTYPE

BATCH = {
    "input_ids": torch.arange(1, 11).view(2, 5),
    "attention_mask": torch.tensor([[1, 1, 0, 1, 1], [1, 1, 1, 0, 0]]),
    "labels": torch.tensor([0, 2]),
}


@pytest.fixture(params=["lstm", "gru"])
def model(request, tiny_config):
    return build_head("MaskAttnForSequenceClassification", tiny_config, rnn_type=request.param, num_hidden_layers=2).eval()


@torch.no_grad()
def logits(model):
    return model(**BATCH).logits


def test_deepcopy_is_equal_and_independent(model):
    expected, copy = logits(model), deepcopy(model)
    assert torch.equal(logits(copy), expected)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.mul_(2)
    assert torch.equal(logits(model), expected)
    assert (logits(copy) - expected).abs().max() > 0.01


@pytest.mark.parametrize("assign", [False, True])
def test_meta_model_loads_a_state_dict(model, assign):
    with torch.device("meta"):
        empty = type(model)(model.config).eval()
    if not assign:
        empty.to_empty(device="cpu")
    empty.load_state_dict(deepcopy(model.state_dict()), assign=assign)
    assert torch.equal(logits(empty), logits(model))


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [("half", OUTPUT_BY_DTYPE[torch.float16]), ("bfloat16", OUTPUT_BY_DTYPE[torch.bfloat16]), ("double", OUTPUT)],
)
def test_dtype_changes_and_changes_back(model, change, tolerance):
    expected, changed = logits(model), getattr(deepcopy(model), change)()
    torch.testing.assert_close(logits(changed).float(), expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(logits(changed.float()), expected, atol=tolerance, rtol=0)
