"""Attention stays trainable: its scores do not saturate, and its weights find the token that matters."""

import pytest
import torch

from hf_maskattn import MaskAttnForSequenceClassification
from hf_maskattn.training.results import attention_statistics


def train_model(model, draw_batch, num_steps, learning_rate):
    """Train a classifier with Adam on batches of `draw_batch(rows)`."""
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    for _ in range(num_steps):
        optimizer.zero_grad()
        model(**draw_batch(64)).loss.backward()
        optimizer.step()


def draw_majority_batch(num_rows):
    """Draw rows whose label is whether most tokens are above 20."""
    ids = torch.randint(1, 40, (num_rows, 6))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ((ids > 20).sum(dim=1) > 3).long()}


@pytest.mark.parametrize(("query", "saturates"), [("bias", False), ("learned", True)])
def test_scores_do_not_saturate_in_training(tiny_config, query, saturates):
    # A learned query is the control: the vector and the matrix that projects it are both trained, and their product grows.
    model = MaskAttnForSequenceClassification(tiny_config(hidden_size=64, attention_query=query, rnn_type="gru")).train()
    train_model(model, draw_majority_batch, 30, 0.03)
    derivative = attention_statistics(model, [draw_majority_batch(64)]).tanh_derivative
    assert derivative < 0.01 if saturates else derivative > 0.1


NUM_KEYS, NUM_NOISE, TIME = 3, 30, 12
"""Token ids 1 to 3 are keys, the following 30 are noise."""


def draw_key_batch(num_rows):
    """Draw noise with one key token at a random place, which is the label; 0 for rows that have none."""
    lengths = torch.randint(TIME // 2, TIME + 1, (num_rows,))
    labels = torch.randint(NUM_KEYS + 1, (num_rows,))
    ids = torch.randint(NUM_KEYS + 1, NUM_KEYS + NUM_NOISE + 1, (num_rows, TIME))
    rows, places = torch.arange(num_rows), (torch.rand(num_rows) * lengths).long()
    ids[rows, places] = torch.where(labels > 0, labels, ids[rows, places])
    mask = torch.arange(TIME) < lengths[:, None]
    return {"input_ids": ids, "attention_mask": mask.long(), "labels": labels}


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_attention_finds_the_key_token(tiny_config, seed):
    torch.manual_seed(seed)
    sizes = {"embedding_size": 16, "hidden_size": 4, "attention_size": 32, "num_labels": NUM_KEYS + 1}
    model = MaskAttnForSequenceClassification(tiny_config(rnn_type="gru", **sizes)).train()
    train_model(model, draw_key_batch, 100, 0.02)
    batch = draw_key_batch(200)
    with torch.no_grad():
        weights = model.eval()(**batch, output_attentions=True).attentions[0][:, 0, 0]  # [B, T]
    is_key = (batch["input_ids"] > 0) & (batch["input_ids"] <= NUM_KEYS)
    mass = (weights * is_key).sum(dim=1)[batch["labels"] > 0]
    assert mass.mean() > 0.9
    assert attention_statistics(model, [batch]).tanh_derivative > 0.1
