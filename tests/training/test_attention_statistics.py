import math

import pytest
import torch

import hf_maskattn
from hf_maskattn.training.results import AttentionStatistics, attention_statistics, normalized_entropy
from tests.heads import build_head
from tests.tolerances import MANY_STEPS

BATCH = {
    "input_ids": torch.arange(1, 16).view(3, 5),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [0, 1, 0, 1, 1], [0, 0, 1, 0, 0]]),
}
LABELS = torch.tensor([[4, 5, 6, 2], [7, 2, -100, -100], [8, 9, 2, -100]])


def without_padding(batch):
    """Each row of a batch by itself, without its padding."""
    for row, mask in enumerate(batch["attention_mask"].bool()):
        tokens = {name: batch[name][row][None, mask] for name in ("input_ids", "attention_mask")}
        labels = {"labels": batch["labels"][row][None, batch["labels"][row] != -100]} if "labels" in batch else {}
        yield {**tokens, **labels}


def scale_weights(model):
    """Make weights uneven and the scores partly saturated."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "attention" in name or "embeddings" in name:
                parameter.normal_(std=1.5)


def test_normalized_entropy_by_hand():
    weights = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.1, 0.2, 0.3, 0.4]])
    by_hand = -(0.1 * math.log(0.1) + 0.2 * math.log(0.2) + 0.3 * math.log(0.3) + 0.4 * math.log(0.4)) / math.log(4)
    torch.testing.assert_close(normalized_entropy(weights), torch.tensor([1.0, 0.0, 0.5, by_hand]))


@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
@pytest.mark.parametrize("query", ["bias", "learned", "last", "mean"])
def test_statistics_of_pooling(tiny_config, query, implementation):
    choices = {"attention_query": query, "attention_implementation": implementation, "num_attention_heads": 2}
    model = build_head("MaskAttnForSequenceClassification", tiny_config, hidden_dropout_prob=0.5, **choices).train()
    scale_weights(model)
    actual = attention_statistics(model, [BATCH])
    assert model.training
    encoder, entropies, derivatives = model.eval().maskattn, [], []
    attention = encoder.pooling.attention
    for row in without_padding(BATCH):
        outputs = encoder(**row, output_attentions=True)
        memory, weights = outputs.last_hidden_state[0], outputs.attentions[0][0, :, 0]  # [n, H], [heads, n]
        if len(memory) > 1:
            entropies += [-(head * head.log()).sum() / math.log(len(memory)) for head in weights]
        if query == "bias":
            projected = attention.bias
        else:
            vectors = {"learned": encoder.pooling.query, "mean": memory.mean(dim=0)}
            vectors["last"] = torch.cat([memory[-1, :4], memory[0, 4:]])
            projected = attention.query_projection.weight @ vectors[query]
        derivatives += [1 - torch.tanh(projected + attention.key_projection.weight @ state) ** 2 for state in memory]
    assert actual.rows == 3
    assert actual.entropy == pytest.approx(torch.stack(entropies).mean().item(), abs=MANY_STEPS)
    assert actual.tanh_derivative == pytest.approx(torch.stack(derivatives).mean().item(), abs=MANY_STEPS)
    assert 0.1 < actual.tanh_derivative < 0.9


@pytest.mark.parametrize("query", ["previous", "current"])
def test_statistics_of_decoder(tiny_rnnsearch_config, query):
    config = tiny_rnnsearch_config(attention_query=query, num_attention_heads=2)
    model = hf_maskattn.RNNSearchForConditionalGeneration(config).eval()
    scale_weights(model)
    batch = {**BATCH, "labels": LABELS}
    actual = attention_statistics(model, [batch])
    attention, entropies, derivatives = model.rnnsearch.decoder.attention, [], []
    for row in without_padding(batch):
        outputs = model(**row, output_attentions=True, output_hidden_states=True)
        memory, states = outputs.encoder_last_hidden_state[0], outputs.decoder_hidden_states[1][0]
        if len(memory) > 1:
            weights = outputs.cross_attentions[0][0].flatten(0, 1)
            entropies += [-(step * step.log()).sum() / math.log(len(memory)) for step in weights]
        for state in states[:-1] if query == "previous" else states:
            projected = attention.query_projection.weight @ state
            derivatives += [1 - torch.tanh(projected + attention.key_projection.weight @ h) ** 2 for h in memory]
    assert actual.rows == 3
    assert actual.entropy == pytest.approx(torch.stack(entropies).mean().item(), abs=MANY_STEPS)
    assert actual.tanh_derivative == pytest.approx(torch.stack(derivatives).mean().item(), abs=MANY_STEPS)


def test_statistics_without_tokens(tiny_config):
    model = build_head("MaskAttnModel", tiny_config)
    empty = {name: torch.zeros(2, 3, dtype=torch.long) for name in BATCH}
    assert attention_statistics(model, [empty]) == AttentionStatistics(entropy=None, tanh_derivative=None, rows=2)
    assert attention_statistics(model, []).describe() == ""


@pytest.mark.parametrize(("entropy", "is_mean"), [(0.99, True), (0.97, False), (None, False)])
def test_statistics_state_that_attention_is_a_mean(entropy, is_mean):
    statistics = AttentionStatistics(entropy, 0.5, 8)
    assert statistics.is_mean == is_mean
    assert ("The attention is a mean" in statistics.describe()) == is_mean
    assert "The mean derivative of tanh in the scores is 0.500" in statistics.describe()
