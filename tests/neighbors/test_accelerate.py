"""accelerate: a custom training loop, and saving its state."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from datasets import Dataset
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding

from tests.heads import build_head
from tests.shared_storage import share_storage
from tests.tolerances import GRADIENT_BY_DTYPE


@pytest.fixture(autouse=True)
def _reset_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def train(model, rows, tokenizer, mixed_precision, accumulation, batch_size):
    accelerator = Accelerator(cpu=True, mixed_precision=mixed_precision, gradient_accumulation_steps=accumulation)
    batches = DataLoader(
        Dataset.from_list(rows).with_format("torch"), batch_size, collate_fn=DataCollatorWithPadding(tokenizer)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    model, optimizer, batches = accelerator.prepare(model, optimizer, batches)
    losses = []
    for _ in range(6):
        for batch in batches:
            with accelerator.accumulate(model):
                loss = model(**batch).loss
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
    return losses, accelerator.unwrap_model(model)


@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
def test_training_loop_reduces_loss(tiny_config, rows, tokenizer, mixed_precision, rnn_type):
    model = build_head("MaskAttnForSequenceClassification", tiny_config, rnn_type=rnn_type)
    losses, trained = train(model, rows, tokenizer, mixed_precision, 1, 8)
    assert sum(losses[-4:]) < 0.6 * sum(losses[:4])
    assert {parameter.dtype for parameter in trained.parameters()} == {torch.float32}


def test_gradient_accumulation_equals_one_large_batch(tiny_config, rows, tokenizer):
    states = []
    for accumulation, batch_size in ((1, 8), (4, 2)):
        torch.manual_seed(0)
        # In float32, AdamW would amplify the rounding of gradients near 0, such as the first ones of the bias of the attention.
        model = build_head("MaskAttnForSequenceClassification", tiny_config).double()
        states.append(train(model, rows[:24], tokenizer, "no", accumulation, batch_size)[1].state_dict())
    torch.testing.assert_close(states[1], states[0], atol=GRADIENT_BY_DTYPE[torch.float64], rtol=0)


@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
def test_weights_with_shared_storage_are_saved(tiny_config, tmp_path, rnn_type):
    model = build_head("MaskAttnForMaskedLM", tiny_config, rnn_type=rnn_type, num_hidden_layers=2)
    share_storage(model)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(model)
    accelerator.save_model(model, tmp_path / "model")
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert saved.keys() == expected.keys() - {"lm_head.decoder.weight"}
    assert all(torch.equal(value, expected[name]) for name, value in saved.items())

    accelerator.save_state(tmp_path / "state")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    accelerator.load_state(tmp_path / "state")
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
