import pytest
import torch

from hf_maskattn.model.attentive_gradient import attentive_recurrence_over_cells
from hf_maskattn.model.attentive_recurrence import attentive_recurrence
from hf_maskattn.model.eager_attention import eager_attention
from hf_maskattn.model.segments import Segment
from tests.tolerances import GRADIENT_BY_DTYPE

WIDTH, SIZE, MEMORY, ROWS = 3, 4, 6, 3
EQUAL, ENDING, SINGLE = (Segment(4, 3),), (Segment(2, 3), Segment(1, 2), Segment(2, 1)), (Segment(1, 2),)


def inputs(rnn_type, heads, segments, dtype=torch.float64):
    """Everything that may have a gradient, by name."""
    gates, count = {"lstm": (4, 2), "gru": (3, 1)}[rnn_type]
    shapes = {
        "x": (sum(s.steps * s.rows for s in segments), 2),
        "weight_ih": (gates * WIDTH, 2 + MEMORY),
        "weight_hh": (gates * WIDTH, WIDTH),
        "bias_ih": (gates * WIDTH,),
        "bias_hh": (gates * WIDTH,),
        "query_weight": (SIZE, WIDTH),
        "energy": (heads, SIZE // heads),
        "keys": (ROWS, 5, SIZE),
        "values": (ROWS, 5, MEMORY),
        **{f"first_{index}": (ROWS, WIDTH) for index in range(count)},
    }
    return {name: torch.randn(shape, dtype=dtype, requires_grad=True) for name, shape in shapes.items()}


MASK = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]]).bool()


def run(rnn_type, segments, given, dropout=0.0, mask=MASK):
    named = dict(given)
    weights = [named[name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    first = [value for name, value in named.items() if name.startswith("first")]
    return attentive_recurrence_over_cells(
        rnn_type,
        named["x"],
        weights,
        (named["query_weight"], named["energy"]),
        (named["keys"], named["values"], mask),
        segments,
        first,
        dropout,
    )


@pytest.mark.parametrize("segments", [EQUAL, ENDING, SINGLE], ids=["equal", "ending", "single"])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("rnn_type", ["gru", "lstm"])
def test_gradcheck(rnn_type, heads, segments):
    given = inputs(rnn_type, heads, segments)

    def outputs(*tensors):
        *results, last = run(rnn_type, segments, zip(given, tensors, strict=True))
        return (*results, *last)

    assert torch.autograd.gradcheck(outputs, [*given.values()], fast_mode=True)


@pytest.mark.parametrize("mask", [MASK, torch.ones_like(MASK)], ids=["padded", "full"])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("rnn_type", ["gru", "lstm"])
def test_outputs_and_gradients_are_those_of_the_plain_loop(rnn_type, heads, mask):
    given = inputs(rnn_type, heads, EQUAL)

    def attend(query):
        projected = (query @ given["query_weight"].T)[:, None]
        context, weights = eager_attention(projected, given["keys"], given["values"], given["energy"], mask)
        return context[:, 0], weights[:, :, 0]

    weights = [given[name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    first = [value for name, value in given.items() if name.startswith("first")]
    *found, found_last = run(rnn_type, EQUAL, given, mask=mask)
    *expected, last = attentive_recurrence(rnn_type, given["x"].view(4, 3, 2), weights, attend, first)
    expected = [tensor.flatten(0, 1) for tensor in expected]
    directions = [torch.randn_like(tensor) for tensor in (*expected, *last)]
    gradients = []
    for results in ((*found, *found_last), (*expected, *last)):
        total = sum((tensor * direction).sum() for tensor, direction in zip(results, directions, strict=True))
        gradients.append(torch.autograd.grad(total, [*given.values()]))
    for one, other in zip((*found, *found_last, *gradients[0]), (*expected, *last, *gradients[1]), strict=True):
        torch.testing.assert_close(one, other, atol=GRADIENT_BY_DTYPE[torch.float64], rtol=0)


@pytest.mark.parametrize("mask", [MASK, torch.ones_like(MASK)], ids=["padded", "full"])
def test_dropped_tokens_have_no_weight_and_no_gradient(mask):
    given = inputs("gru", 1, EQUAL)
    states, _, weights, _ = run("gru", EQUAL, given, dropout=0.5, mask=mask)
    dropped = (weights == 0) & mask.repeat(4, 1)[:, None]
    assert dropped.any()
    torch.testing.assert_close(weights.sum(dim=-1), mask.any(dim=1).repeat(4)[:, None].double())
    (of_keys,) = torch.autograd.grad(states.sum(), given["keys"])
    never_read = dropped.view(4, 3, 5).all(dim=0)
    assert not of_keys[never_read].any()


def test_it_can_be_differentiated_once():
    given = inputs("gru", 1, EQUAL)
    states, *_ = run("gru", EQUAL, given)
    with pytest.raises(NotImplementedError, match='take "eager" where a gradient is differentiated'):
        torch.autograd.grad(states.sum(), given["x"], create_graph=True)


@pytest.mark.parametrize("segments", [EQUAL, ENDING, SINGLE], ids=["equal", "ending", "single"])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("rnn_type", ["gru", "lstm"])
def test_without_a_gradient_it_gives_the_same(rnn_type, heads, segments):
    given = inputs(rnn_type, heads, segments)
    *expected, last = run(rnn_type, segments, given)
    with torch.no_grad():
        *found, found_last = run(rnn_type, segments, given)
    for one, other in zip((*found, *found_last), (*expected, *last), strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, atol=GRADIENT_BY_DTYPE[torch.float64], rtol=0)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("rnn_type", ["gru", "lstm"])
def test_rows_that_share_a_source_read_it_as_if_each_had_its_own(rnn_type, heads, steps):
    given = inputs(rnn_type, heads, (Segment(steps, 2 * ROWS),))
    own = {name: given[name].repeat_interleave(2, dim=0) for name in ("keys", "values")}
    first = {name: torch.randn(2 * ROWS, WIDTH).double() for name in given if name.startswith("first")}
    mask = MASK.repeat_interleave(2, dim=0)
    for context in (torch.enable_grad, torch.no_grad):
        with context():
            *found, last = run(rnn_type, (Segment(steps, 2 * ROWS),), {**given, **first})
            *expected, expected_last = run(rnn_type, (Segment(steps, 2 * ROWS),), {**given, **own, **first}, mask=mask)
        for one, other in zip((*found, *last), (*expected, *expected_last), strict=True):
            torch.testing.assert_close(one, other, atol=GRADIENT_BY_DTYPE[torch.float64], rtol=0)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("rnn_type", ["gru", "lstm"])
def test_there_may_be_no_row(rnn_type, grad):
    given = inputs(rnn_type, 2, (Segment(1, 0),))
    given = {name: value[:0] if name.startswith(("keys", "values", "first")) else value for name, value in given.items()}
    with torch.set_grad_enabled(grad):
        states, contexts, weights, _ = run(rnn_type, (Segment(1, 0),), given, mask=MASK[:0])
    assert (states.shape, contexts.shape, weights.shape) == ((0, WIDTH), (0, MEMORY), (0, 2, 5))
