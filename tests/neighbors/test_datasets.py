"""datasets: columns of `map` are inputs of a model."""

import torch
from datasets import Dataset

from tests.heads import build_head
from tests.neighbors.conftest import TEXTS
from tests.tolerances import OUTPUT


def test_padded_dataset_in_torch_format_is_a_batch(tiny_config, tokenizer):
    model = build_head("MaskAttnForSequenceClassification", tiny_config).eval()
    data = Dataset.from_dict({"text": TEXTS, "label": [0, 1, 2, 0]})
    data = data.map(tokenizer, input_columns="text", batched=True, fn_kwargs={"padding": "max_length"}, remove_columns="text")
    batch = data.rename_column("label", "labels").with_format("torch")[:]
    assert batch["input_ids"].shape == (4, 64)
    expected = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in TEXTS])
    torch.testing.assert_close(model(**batch).logits, expected, atol=OUTPUT, rtol=0)
