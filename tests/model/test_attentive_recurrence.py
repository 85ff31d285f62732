import pytest
import torch

from hf_maskattn.model.attention import AdditiveAttention
from hf_maskattn.model.attention_functions import eager_attention
from hf_maskattn.model.attentive_recurrence import attentive_recurrence, packed_attentive_recurrence
from hf_maskattn.model.packing import TimeChunk
from tests.tolerances import GRADIENT_BY_DTYPE

CELLS = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}


@pytest.mark.parametrize("rnn_type", CELLS)
@pytest.mark.parametrize("input_feeding", [False, True])
def test_attentive_recurrence_matches_torch_cell(rnn_type, input_feeding):
    attention = AdditiveAttention(query_size=3, memory_size=4, attention_size=2)
    torch.nn.init.normal_(attention.energy)
    cell = CELLS[rnn_type](5 + 4, 3)
    memory, mask = torch.randn(2, 6, 4), torch.rand(2, 6) < 0.7
    x = torch.randn(4, 2, 5)
    initial_state = [torch.randn(2, 3) for _ in range(2 if rnn_type == "lstm" else 1)]
    initial_context = torch.randn(2, 4) if input_feeding else None

    def attend(query):
        context, weights = attention(query[:, None], memory, mask)
        return context[:, 0], weights[:, :, 0]

    states, contexts, weights, final_state = attentive_recurrence(
        rnn_type, x, [*cell.parameters()], attend, initial_state, initial_context
    )
    states, contexts, weights = (tensor.unflatten(0, (4, 2)) for tensor in (states, contexts, weights))
    state, context = initial_state, initial_context
    for step, token in enumerate(x):
        if not input_feeding:
            context, expected = attend(state[0])
        state = cell(torch.cat([token, context], dim=1), state if rnn_type == "lstm" else state[0])
        state = state if rnn_type == "lstm" else (state,)
        if input_feeding:
            context, expected = attend(state[0])
        torch.testing.assert_close(states[step], state[0])
        torch.testing.assert_close(contexts[step], context)
        torch.testing.assert_close(weights[step], expected)
    torch.testing.assert_close(final_state, state)


WIDTH, SIZE, MEMORY, ROWS = 3, 4, 6, 3
EQUAL = (TimeChunk(4, 3),)
ENDING = (TimeChunk(2, 3), TimeChunk(1, 2), TimeChunk(2, 1))
SINGLE = (TimeChunk(1, 2),)


def inputs(rnn_type, heads, time_chunks, dtype=torch.float64):
    """Build all tensors that may have a gradient, by name."""
    gates, count = {"lstm": (4, 2), "gru": (3, 1)}[rnn_type]
    shapes = {
        "x": (sum(chunk.steps * chunk.rows for chunk in time_chunks), 2),
        "weight_ih": (gates * WIDTH, 2 + MEMORY),
        "weight_hh": (gates * WIDTH, WIDTH),
        "bias_ih": (gates * WIDTH,),
        "bias_hh": (gates * WIDTH,),
        "query_weight": (SIZE, WIDTH),
        "energy": (heads, SIZE // heads),
        "keys": (ROWS, 5, SIZE),
        "values": (ROWS, 5, MEMORY),
        **{f"initial_state_{index}": (ROWS, WIDTH) for index in range(count)},
    }
    return {name: torch.randn(shape, dtype=dtype, requires_grad=True) for name, shape in shapes.items()}


MASK = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]]).bool()


def run(rnn_type, time_chunks, tensors, dropout=0.0, mask=MASK):
    named = dict(tensors)
    weights = [named[name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    initial_state = [value for name, value in named.items() if name.startswith("initial_state")]
    return packed_attentive_recurrence(
        named["x"],
        weights,
        (named["query_weight"], named["energy"]),
        (named["keys"], named["values"], mask),
        time_chunks,
        initial_state,
        dropout,
    )


@pytest.mark.parametrize("time_chunks", [EQUAL, ENDING, SINGLE], ids=["equal", "ending", "single"])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("rnn_type", ["gru", "lstm"])
def test_packed_attentive_recurrence_gradcheck(rnn_type, heads, time_chunks):
    tensors = inputs(rnn_type, heads, time_chunks)

    def outputs(*values):
        *results, final_state = run(rnn_type, time_chunks, zip(tensors, values, strict=True))
        return (*results, *final_state)

    assert torch.autograd.gradcheck(outputs, [*tensors.values()], fast_mode=True)


@pytest.mark.parametrize("mask", [MASK, torch.ones_like(MASK)], ids=["padded", "full"])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("rnn_type", ["gru", "lstm"])
def test_packed_attentive_recurrence_matches_loop(rnn_type, heads, mask):
    tensors = inputs(rnn_type, heads, EQUAL)

    def attend(query):
        projected = (query @ tensors["query_weight"].T)[:, None]
        context, weights = eager_attention(projected, tensors["keys"], tensors["values"], tensors["energy"], mask)
        return context[:, 0], weights[:, :, 0]

    weights = [tensors[name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    initial_state = [value for name, value in tensors.items() if name.startswith("initial_state")]
    *actual, actual_state = run(rnn_type, EQUAL, tensors, mask=mask)
    *expected, expected_state = attentive_recurrence(rnn_type, tensors["x"].view(4, 3, 2), weights, attend, initial_state)
    directions = [torch.randn_like(tensor) for tensor in (*expected, *expected_state)]
    gradients = []
    for results in ((*actual, *actual_state), (*expected, *expected_state)):
        total = sum((tensor * direction).sum() for tensor, direction in zip(results, directions, strict=True))
        gradients.append(torch.autograd.grad(total, [*tensors.values()]))
    actual, expected = [actual, actual_state, gradients[0]], [expected, expected_state, gradients[1]]
    torch.testing.assert_close(actual, expected, atol=GRADIENT_BY_DTYPE[torch.float64], rtol=0)


@pytest.mark.parametrize("mask", [MASK, torch.ones_like(MASK)], ids=["padded", "full"])
def test_dropped_tokens_have_no_weight_and_gradient(mask):
    tensors = inputs("gru", 1, EQUAL)
    states, _, weights, _ = run("gru", EQUAL, tensors, dropout=0.5, mask=mask)
    dropped = (weights == 0) & mask.repeat(4, 1)[:, None]
    assert dropped.any()
    torch.testing.assert_close(weights.sum(dim=-1), mask.any(dim=1).repeat(4)[:, None].double())
    (grad_keys,) = torch.autograd.grad(states.sum(), tensors["keys"])
    never_read = dropped.view(4, 3, 5).all(dim=0)
    assert not grad_keys[never_read].any()


def test_packed_attentive_recurrence_rejects_second_derivative():
    tensors = inputs("gru", 1, EQUAL)
    states, *_ = run("gru", EQUAL, tensors)
    with pytest.raises(NotImplementedError, match=r'can be differentiated once\. Use "eager"'):
        torch.autograd.grad(states.sum(), tensors["x"], create_graph=True)


@pytest.mark.parametrize("time_chunks", [EQUAL, ENDING, SINGLE], ids=["equal", "ending", "single"])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("rnn_type", ["gru", "lstm"])
def test_packed_attentive_recurrence_without_gradient(rnn_type, heads, time_chunks):
    tensors = inputs(rnn_type, heads, time_chunks)
    expected = run(rnn_type, time_chunks, tensors)
    with torch.no_grad():
        actual = run(rnn_type, time_chunks, tensors)
    torch.testing.assert_close(actual, expected, atol=GRADIENT_BY_DTYPE[torch.float64], rtol=0)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("rnn_type", ["gru", "lstm"])
def test_rows_with_shared_source_match_repeated_source(rnn_type, heads, steps):
    time_chunks = (TimeChunk(steps, 2 * ROWS),)
    tensors = inputs(rnn_type, heads, time_chunks)
    repeated = {name: tensors[name].repeat_interleave(2, dim=0) for name in ("keys", "values")}
    initial_state = {name: torch.randn(2 * ROWS, WIDTH).double() for name in tensors if name.startswith("initial_state")}
    mask = MASK.repeat_interleave(2, dim=0)
    for context in (torch.enable_grad, torch.no_grad):
        with context():
            actual = run(rnn_type, time_chunks, {**tensors, **initial_state})
            expected = run(rnn_type, time_chunks, {**tensors, **repeated, **initial_state}, mask=mask)
        torch.testing.assert_close(actual, expected, atol=GRADIENT_BY_DTYPE[torch.float64], rtol=0)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("rnn_type", ["gru", "lstm"])
def test_packed_attentive_recurrence_without_rows(rnn_type, grad):
    tensors = inputs(rnn_type, 2, (TimeChunk(1, 0),))
    no_rows = {
        name: value[:0] if name.startswith(("keys", "values", "initial_state")) else value for name, value in tensors.items()
    }
    with torch.set_grad_enabled(grad):
        states, contexts, weights, _ = run(rnn_type, (TimeChunk(1, 0),), no_rows, mask=MASK[:0])
    assert (states.shape, contexts.shape, weights.shape) == ((0, WIDTH), (0, MEMORY), (0, 2, 5))
