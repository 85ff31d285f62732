import pytest
import torch

from hf_maskattn.model import decoder_layers
from hf_maskattn.model.attention import AdditiveAttention
from hf_maskattn.model.decoder_layers import AttentiveLayer
from hf_maskattn.model.segments import Segment

MASK = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 0, 1, 1]]).bool()


def layer_and_attention(dropout=0.0):
    layer = AttentiveLayer(input_size=3, hidden_size=4, memory_size=6, rnn_type="gru", feeds_input=False)
    attention = AdditiveAttention(query_size=4, memory_size=6, attention_size=8, implementation="chunked", dropout=dropout)
    torch.nn.init.normal_(attention.energy)
    return layer, attention


def run(layer, attention, segments):
    memory, count = torch.randn(2, 5, 6), sum(segment.steps * segment.rows for segment in segments)
    keys, values = attention.prepare(memory, MASK)
    return layer(torch.randn(count, 3), segments, attention, keys, values, MASK, None, torch.randn(2, 4))


@pytest.mark.parametrize(
    ("segments", "alone"),
    [
        pytest.param([Segment(1, 2)], True, id="a token of each row"),
        pytest.param([Segment(2, 1)], False, id="two tokens of one row"),
        pytest.param([Segment(1, 2), Segment(1, 1)], False, id="a row ends"),
        pytest.param([Segment(1, 1)], False, id="a token of one row"),
    ],
)
def test_a_step_alone_is_one_token_of_each_row(monkeypatch, segments, alone):
    calls = []
    step = decoder_layers.attentive_step
    monkeypatch.setattr(decoder_layers, "attentive_step", lambda *given: calls.append(given) or step(*given))
    layer, attention = layer_and_attention()
    states, contexts, weights, _ = run(layer, attention, segments)
    with torch.no_grad():
        assert not calls
        states, contexts, weights, _ = run(layer, attention, segments)
    assert len(calls) == alone
    assert len(states) == len(contexts) == len(weights) == sum(segment.steps * segment.rows for segment in segments)


def test_a_step_alone_drops_tokens_in_training():
    layer, attention = layer_and_attention(dropout=0.5)
    with torch.no_grad():
        dropped = [((run(layer, attention, [Segment(1, 2)])[2][:, 0] == 0) & MASK).any() for _ in range(20)]
    assert any(dropped)
