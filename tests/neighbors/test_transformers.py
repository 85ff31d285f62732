"""transformers: device and dtype of `from_pretrained`."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

IDS = torch.arange(1, 11).view(2, 5)


@pytest.mark.parametrize(
    ("arguments", "dtype"),
    [
        ({"device_map": "auto"}, torch.float32),
        ({"device_map": "cpu", "dtype": torch.bfloat16}, torch.bfloat16),
        ({"dtype": "auto"}, torch.float32),
        ({"dtype": "float16"}, torch.float16),
        ({"torch_dtype": torch.bfloat16}, torch.bfloat16),
    ],
    ids=str,
)
def test_from_pretrained_on_device_and_dtype(saved, arguments, dtype):
    model, folder = saved()
    loaded = AutoModelForSequenceClassification.from_pretrained(folder, **arguments)
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, model.to(dtype)(IDS).logits)
