import pytest
import torch

from hf_maskattn.model.attentive_gradient import attentive_recurrence_over_cells
from hf_maskattn.model.attentive_recurrence import attentive_recurrence
from hf_maskattn.model.eager_attention import eager_attention
from hf_maskattn.model.segments import Segment

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


def run(rnn_type, segments, given, dropout=0.0):
    named = dict(given)
    weights = [named[name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    first = [value for name, value in named.items() if name.startswith("first")]
    return attentive_recurrence_over_cells(
        rnn_type,
        named["x"],
        weights,
        (named["query_weight"], named["energy"]),
        (named["keys"], named["values"], MASK),
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


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("rnn_type", ["gru", "lstm"])
def test_outputs_and_gradients_are_those_of_the_plain_loop(rnn_type, heads):
    given = inputs(rnn_type, heads, EQUAL)

    def attend(query):
        projected = (query @ given["query_weight"].T)[:, None]
        context, weights = eager_attention(projected, given["keys"], given["values"], given["energy"], MASK)
        return context[:, 0], weights[:, :, 0]

    weights = [given[name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    first = [value for name, value in given.items() if name.startswith("first")]
    *found, found_last = run(rnn_type, EQUAL, given)
    *expected, last = attentive_recurrence(rnn_type, given["x"].view(4, 3, 2), weights, attend, first)
    expected = [tensor.flatten(0, 1) for tensor in expected]
    directions = [torch.randn_like(tensor) for tensor in (*expected, *last)]
    gradients = []
    for results in ((*found, *found_last), (*expected, *last)):
        total = sum((tensor * direction).sum() for tensor, direction in zip(results, directions, strict=True))
        gradients.append(torch.autograd.grad(total, [*given.values()]))
    for one, other in zip((*found, *found_last, *gradients[0]), (*expected, *last, *gradients[1]), strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=0)


def test_dropped_tokens_have_no_weight_and_no_gradient():
    given = inputs("gru", 1, EQUAL)
    states, _, weights, _ = run("gru", EQUAL, given, dropout=0.5)
    dropped = (weights == 0) & MASK.repeat(4, 1)[:, None]
    assert dropped.any()
    torch.testing.assert_close(weights.sum(dim=-1), MASK.any(dim=1).repeat(4)[:, None].double())
    (of_keys,) = torch.autograd.grad(states.sum(), given["keys"])
    never_read = dropped.view(4, 3, 5).all(dim=0)
    assert not of_keys[never_read].any()


def test_it_can_be_differentiated_once():
    given = inputs("gru", 1, EQUAL)
    states, *_ = run("gru", EQUAL, given)
    with pytest.raises(NotImplementedError, match='take "eager" where a gradient is differentiated'):
        torch.autograd.grad(states.sum(), given["x"], create_graph=True)
