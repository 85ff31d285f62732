import pytest
import torch

from hf_maskattn.model import decoder_layers, masking
from hf_maskattn.model.attention import AdditiveAttention
from hf_maskattn.model.decoder_layers import AttentiveLayer, DeepOutput
from hf_maskattn.model.packing import TimeChunk

MASK = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 0, 1, 1]]).bool()


def layer_and_attention(dropout=0.0):
    layer = AttentiveLayer(input_size=3, hidden_size=4, memory_size=6, rnn_type="gru", input_feeding=False)
    attention = AdditiveAttention(query_size=4, memory_size=6, attention_size=8, implementation="chunked", dropout=dropout)
    torch.nn.init.normal_(attention.energy)
    return layer, attention


def run(layer, attention, time_chunks):
    memory = torch.randn(2, 5, 6)
    num_positions = sum(chunk.steps * chunk.rows for chunk in time_chunks)
    keys, values = attention.prepare(memory, MASK)
    return layer(torch.randn(num_positions, 3), time_chunks, attention, keys, values, MASK, None, torch.randn(2, 4))


@pytest.mark.parametrize(
    ("time_chunks", "is_decoding"),
    [
        pytest.param([TimeChunk(1, 2)], True, id="one token of each row"),
        pytest.param([TimeChunk(2, 1)], False, id="two tokens of one row"),
        pytest.param([TimeChunk(1, 2), TimeChunk(1, 1)], False, id="a row ends"),
        pytest.param([TimeChunk(1, 1)], False, id="one token of one row"),
    ],
)
def test_decoding_step_runs_plain_loop(monkeypatch, time_chunks, is_decoding):
    calls = []
    plain_loop = decoder_layers.attentive_recurrence
    monkeypatch.setattr(decoder_layers, "attentive_recurrence", lambda *args: calls.append(args) or plain_loop(*args))
    layer, attention = layer_and_attention()
    run(layer, attention, time_chunks)
    assert not calls
    with torch.no_grad():
        states, contexts, weights, _ = run(layer, attention, time_chunks)
    assert len(calls) == is_decoding
    num_positions = sum(chunk.steps * chunk.rows for chunk in time_chunks)
    assert len(states) == len(contexts) == len(weights) == num_positions


def test_single_step_drops_tokens_in_training():
    layer, attention = layer_and_attention(dropout=0.5)
    with torch.no_grad():
        dropped = [((run(layer, attention, [TimeChunk(1, 2)])[2][:, 0] == 0) & MASK).any() for _ in range(20)]
    assert any(dropped)


def build_output(form):
    output = DeepOutput(state_size=1, embedding_size=1, context_size=1, output_size=2, form=form)
    with torch.no_grad():
        rows = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]] if form == "maxout" else [[1, 1, 0], [0, 0, 2]]
        output.projection.weight.copy_(torch.tensor(rows))
        output.projection.bias.copy_(torch.arange(len(rows)) / 4)
    return output


STATES, TOKENS, CONTEXTS = (torch.tensor([[[value]]]) for value in (3.0, -1.0, 0.5))


@pytest.mark.parametrize(("form", "expected"), [("maxout", [3.0, 3.25]), ("linear", [2.0, 1.25])])
def test_deep_output_by_hand(form, expected):
    # maxout: t' = 3, -1 + 1/4, 1/2 + 1/2, 2.5 + 3/4; the pairs are (3, 1) and (-0.75, 3.25)
    mask = torch.ones(1, 1, dtype=torch.bool)
    assert build_output(form)(STATES, TOKENS, CONTEXTS, mask).tolist() == [[expected]]


def test_deep_output_skips_padding_where_it_pays(monkeypatch):
    monkeypatch.setattr(masking, "_LITTLE_WORK", 0)
    output, num_positions = build_output("maxout"), []
    output.projection.register_forward_hook(lambda module, inputs, result: num_positions.append(result.shape[:-1].numel()))
    mask = torch.tensor([[True, False, False]])
    expected = [[[3.0, 3.25], [0.0, 0.0], [0.0, 0.0]]]
    assert output(*(tensor.expand(1, 3, 1) for tensor in (STATES, TOKENS, CONTEXTS)), mask).tolist() == expected
    assert num_positions == [1]


def test_deep_output_drops_states_and_contexts_only():
    output = DeepOutput(state_size=50, embedding_size=50, context_size=50, output_size=150, form="linear", dropout=0.5)
    with torch.no_grad():
        output.projection.weight.copy_(torch.eye(150))
        output.projection.bias.zero_()
    ones = torch.ones(1, 1, 50)
    states, embedded, contexts = output.train()(ones, ones, ones, None).chunk(3, dim=-1)
    assert {*states.unique().tolist()} == {*contexts.unique().tolist()} == {0.0, 2.0}
    assert torch.equal(embedded, ones)
    assert torch.equal(output.eval()(ones, ones, ones, None), torch.ones(1, 1, 150))


def test_deep_output_rejects_unknown_form():
    with pytest.raises(ValueError, match=r"output_layer must be one of \['maxout', 'linear'\], got 'relu'."):
        build_output("relu")
