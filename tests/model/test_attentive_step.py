import pytest
import torch

from hf_maskattn.model.attentive_recurrence import attentive_recurrence
from hf_maskattn.model.attentive_step import attentive_step
from hf_maskattn.model.eager_attention import eager_attention
from tests.tolerances import OUTPUT, OUTPUT_BY_DTYPE

WIDTH, SIZE, MEMORY, ROWS = 3, 12, 6, 3
GATES = {"lstm": 4, "gru": 3}
MASK = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]]).bool()

pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture
def no_grad():
    with torch.no_grad():
        yield


def draw(rnn_type, heads, rows=ROWS, mask=MASK, dtype=torch.float64):
    """The arguments of a step over random tensors."""
    gates, count = GATES[rnn_type], 2 if rnn_type == "lstm" else 1
    shapes = [(gates * WIDTH, 2 + MEMORY), (gates * WIDTH, WIDTH), (gates * WIDTH,), (gates * WIDTH,)]
    weights = [torch.randn(shape, dtype=dtype) for shape in shapes]
    attention = torch.randn(SIZE, WIDTH, dtype=dtype), torch.randn(heads, SIZE // heads, dtype=dtype)
    memory = *(torch.randn(*mask.shape, width, dtype=dtype) for width in (SIZE, MEMORY)), mask
    state = [torch.randn(rows, WIDTH, dtype=dtype) for _ in range(count)]
    return rnn_type, torch.randn(rows, 2, dtype=dtype), weights, attention, memory, state


def step_by_modules(rnn_type, x, weights, attention, memory, state):
    """The reference: the plain loop, each row with a memory of its own."""
    keys, values, mask = (tensor.repeat_interleave(len(x) // len(memory[2]), dim=0) for tensor in memory)

    def attend(query):
        context, maps = eager_attention((query @ attention[0].T)[:, None], keys, values, attention[1], mask)
        return context[:, 0], maps[:, :, 0]

    *found, last = attentive_recurrence(rnn_type, x[None], weights, attend, state)
    return *(tensor[0] for tensor in found), last


def assert_same(found, expected, atol=OUTPUT_BY_DTYPE[torch.float64]):
    (*found, last), (*expected, expected_last) = found, expected
    for one, other in zip((*found, *last), (*expected, *expected_last), strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, atol=atol, rtol=0)


@pytest.mark.parametrize("mask", [MASK, torch.ones_like(MASK)], ids=["padded", "full"])
@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("heads", [1, 2, MEMORY])
@pytest.mark.parametrize("rnn_type", ["gru", "lstm"])
def test_it_is_a_step_of_the_plain_loop(rnn_type, heads, together, mask):
    given = draw(rnn_type, heads, ROWS * together, mask)
    assert_same(attentive_step(*given), step_by_modules(*given))


@pytest.mark.parametrize("heads", [1, 2])
def test_a_pad_has_no_weight_and_a_row_without_a_token_no_context(heads):
    _, context, maps, _ = attentive_step(*draw("gru", heads))
    assert not maps[(~MASK)[:, None].expand_as(maps)].any()
    assert not context[2].any()


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("rnn_type", ["gru", "lstm"])
def test_it_runs_in_the_dtype_of_its_weights(rnn_type, autocast):
    rnn_type, x, weights, attention, (*inputs, mask), state = draw(rnn_type, 1, dtype=torch.float32)
    x, *inputs = (tensor.bfloat16() for tensor in (x, *inputs))
    state = [tensor.bfloat16() for tensor in state]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = attentive_step(rnn_type, x, weights, attention, (*inputs, mask), state)
    x, *inputs = (tensor.float() for tensor in (x, *inputs))
    state = [tensor.float() for tensor in state]
    assert_same(found, step_by_modules(rnn_type, x, weights, attention, (*inputs, mask), state), atol=OUTPUT)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("rnn_type", ["gru", "lstm"])
def test_there_may_be_no_row(rnn_type, heads):
    states, contexts, maps, last = attentive_step(*draw(rnn_type, heads, rows=0, mask=MASK[:0]))
    assert (states.shape, contexts.shape, maps.shape) == ((0, WIDTH), (0, MEMORY), (0, heads, 5))
    assert all(tensor.shape == (0, WIDTH) for tensor in last)


def test_nothing_given_is_changed():
    given = draw("lstm", 1)
    before = [[tensor.clone() for tensor in tensors] for tensors in given[2:]]
    attentive_step(*given)
    for tensors, copies in zip(given[2:], before, strict=True):
        assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, copies, strict=True))
