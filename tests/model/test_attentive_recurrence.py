import pytest
import torch

from hf_maskattn.model.attention import AdditiveAttention
from hf_maskattn.model.attentive_recurrence import attentive_recurrence

CELLS = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}


@pytest.mark.parametrize("rnn_type", CELLS)
@pytest.mark.parametrize("feeds", [False, True])
def test_each_step_is_torchs_cell_on_a_token_beside_a_context(rnn_type, feeds):
    attention = AdditiveAttention(query_size=3, memory_size=4, attention_size=2)
    torch.nn.init.normal_(attention.energy)
    cell = CELLS[rnn_type](5 + 4, 3)
    memory, mask = torch.randn(2, 6, 4), torch.rand(2, 6) < 0.7
    x, first = torch.randn(4, 2, 5), [torch.randn(2, 3) for _ in range(2 if rnn_type == "lstm" else 1)]
    fed = torch.randn(2, 4) if feeds else None

    def attend(query):
        context, weights = attention(query[:, None], memory, mask)
        return context[:, 0], weights[:, :, 0]

    states, contexts, weights, last = attentive_recurrence(rnn_type, x, [*cell.parameters()], attend, first, fed)
    state, read = first, fed
    for step, token in enumerate(x):
        if not feeds:
            read, expected = attend(state[0])
        state = cell(torch.cat([token, read], dim=1), state if rnn_type == "lstm" else state[0])
        state = state if rnn_type == "lstm" else (state,)
        if feeds:
            read, expected = attend(state[0])
        torch.testing.assert_close(states[step], state[0])
        torch.testing.assert_close(contexts[step], read)
        torch.testing.assert_close(weights[step], expected)
    for one, other in zip(last, state, strict=True):
        torch.testing.assert_close(one, other)
