import pytest
import torch

from hf_maskattn.model import recurrent_autograd
from hf_maskattn.model.packing import TimeChunk
from hf_maskattn.model.recurrent_autograd import BACKWARD_CLASSES, HIDDEN_GATE_ROTATION, STEP_FUNCTIONS, packed_gru
from tests.tolerances import GRADIENT, OUTPUT

TIME_CHUNKS = [
    (TimeChunk(4, 3),),
    (TimeChunk(2, 3), TimeChunk(1, 2), TimeChunk(3, 1)),
    (TimeChunk(1, 1),),
    (TimeChunk(1, 5), TimeChunk(1, 2)),
]


FAST_MODE = pytest.mark.parametrize("fast_mode", [True, pytest.param(False, marks=pytest.mark.slow)])
"""Checks second derivatives along random directions; the full Jacobians take minutes."""


def draw_weights(directions=1, dtype=torch.float64, width=3, inputs=2):
    shapes = [(3 * width, inputs), (3 * width, width), (3 * width,), (3 * width,)]
    return [torch.randn(shape, dtype=dtype) for _ in range(directions) for shape in shapes]


def split_directions(weights):
    return [weights[start : start + 4] for start in range(0, len(weights), 4)]


def build_inputs(time_chunks, directions):
    x = torch.randn(directions, sum(chunk.steps * chunk.rows for chunk in time_chunks), 2, dtype=torch.float64)
    initial_state = torch.randn(directions, time_chunks[0].rows + 1, 3, dtype=torch.float64)  # one row without a token
    return [tensor.requires_grad_() for tensor in (x, initial_state, *draw_weights(directions))]


def run(time_chunks):
    return lambda x, initial_state, *weights: torch.stack(
        [*packed_gru(x, split_directions(weights), time_chunks, initial_state)]
    )


@pytest.fixture(params=["small", "large", "wide"], autouse=True)
def steps(request, monkeypatch):
    """Small steps (torch's kernel), large steps (our loop), and wide layers (our loop, one direction after the other)."""
    if request.param != "small":
        monkeypatch.setattr(recurrent_autograd, "_SMALL_STEP", 0)
    if request.param == "wide":
        monkeypatch.setattr(recurrent_autograd, "_WIDE", 0)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("time_chunks", TIME_CHUNKS)
@FAST_MODE
def test_packed_gru_gradcheck(time_chunks, directions, fast_mode):
    assert torch.autograd.gradcheck(run(time_chunks), build_inputs(time_chunks, directions), fast_mode=fast_mode)


def test_packed_gru_matches_torch():
    rnns = [torch.nn.GRU(2, 3) for _ in range(2)]
    flat = [parameter for rnn in rnns for parameter in rnn.parameters()]
    x = torch.randn(2, 4, 3, 2)
    initial_state = torch.randn(2, 3, 3)
    states = run((TimeChunk(4, 3),))(x.flatten(1, 2), initial_state, *flat).view(2, 4, 3, 3)
    expected = torch.stack([rnn(inputs, state[None])[0] for rnn, inputs, state in zip(rnns, x, initial_state, strict=True)])
    torch.testing.assert_close(states, expected, atol=OUTPUT, rtol=0)
    direction = torch.randn_like(states)
    for actual_grad, expected_grad in zip(
        torch.autograd.grad((states * direction).sum(), flat),
        torch.autograd.grad((expected * direction).sum(), flat),
        strict=True,
    ):
        torch.testing.assert_close(actual_grad, expected_grad, atol=GRADIENT, rtol=0)


@pytest.mark.parametrize("directions", [1, 2])
def test_packed_gru_without_gradient(directions):
    inputs = build_inputs(TIME_CHUNKS[1], directions)
    with torch.no_grad():
        states = run(TIME_CHUNKS[1])(*inputs)
    torch.testing.assert_close(states, run(TIME_CHUNKS[1])(*inputs))


@FAST_MODE
@pytest.mark.parametrize("directions", [1, 2])
def test_packed_gru_gradgradcheck(directions, fast_mode):
    inputs = build_inputs(TIME_CHUNKS[1], directions)
    assert torch.autograd.gradgradcheck(run(TIME_CHUNKS[1]), inputs, fast_mode=fast_mode)


@FAST_MODE
@pytest.mark.parametrize("frozen", [[0], [1, 3, 5], [*range(2, 6)]])
def test_packed_gru_gradgradcheck_with_frozen_inputs(frozen, fast_mode):
    inputs = build_inputs(TIME_CHUNKS[1], 2)
    for index in frozen:
        inputs[index].requires_grad_(False)
    assert torch.autograd.gradgradcheck(run(TIME_CHUNKS[1]), inputs, fast_mode=fast_mode)


def test_backward_does_not_change_incoming_gradient():
    inputs = build_inputs(TIME_CHUNKS[1], 2)
    states = run(TIME_CHUNKS[1])(*inputs)
    grad_states = torch.randn_like(states)
    original = grad_states.clone()
    torch.autograd.grad(states, inputs, grad_states, retain_graph=True)
    torch.autograd.grad(states, inputs, grad_states)
    assert torch.equal(grad_states, original)


def test_wide_layers_run_one_direction_at_a_time(monkeypatch):
    inputs = build_inputs(TIME_CHUNKS[1], 2)
    counts = []
    monkeypatch.setattr(
        recurrent_autograd,
        "_stack_directions",
        lambda parameters, stack=recurrent_autograd._stack_directions: counts.append(len(parameters)) or stack(parameters),
    )
    run(TIME_CHUNKS[1])(*inputs)
    assert counts == ([4, 4] if recurrent_autograd._WIDE == 0 else [8])


CELLS = {1: torch.nn.GRUCell, 2: torch.nn.LSTMCell}


@pytest.mark.parametrize("count", CELLS, ids=["gru", "lstm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_steps_and_gradients_match_torch_cell(count, dtype):
    cell = CELLS[count](4, 3).to(dtype)
    x = torch.randn(2, 5, 4, dtype=dtype)
    initial_state = [torch.randn(5, 3, dtype=dtype, requires_grad=True) for _ in range(count)]
    x.requires_grad_()
    state, states = initial_state, []
    for token in x:
        state = cell(token, state if count == 2 else state[0])
        state = [*state] if count == 2 else [state]
        states.append(state)
    directions = [[torch.randn(5, 3, dtype=dtype) for _ in range(count)] for _ in range(2)]
    total = sum((s * d).sum() for one, two in zip(states, directions, strict=True) for s, d in zip(one, two, strict=True))
    expected = torch.autograd.grad(total, [x, cell.bias_ih, cell.bias_hh, *initial_state])

    with torch.no_grad():
        gates = torch.addmm(cell.bias_ih, x.flatten(0, 1), cell.weight_ih.T)
        hidden_gates, out = torch.empty_like(gates), torch.empty(count, 10, 3, dtype=dtype)
        state = initial_state
        for start in (0, 5):
            rows = slice(start, start + 5)
            torch.addmm(cell.bias_hh, state[0], cell.weight_hh.T, out=hidden_gates[rows])
            state = STEP_FUNCTIONS[count](gates[rows], hidden_gates[rows], state, out[:, rows])
            torch.testing.assert_close(state, states[start // 5])
        previous = [torch.cat([initial, own[:5]]) for initial, own in zip(initial_state, out, strict=True)]
        grad_gates = torch.empty(10, 12, dtype=dtype)
        backward = BACKWARD_CLASSES[count](gates, hidden_gates[:, -3:], previous, grad_gates, [5, 5])
        grad_hidden_gates = grad_gates[:, : gates.shape[1]]
        grad_input_gates = grad_gates[:, -gates.shape[1] :]
        grad_state = [direction.clone() for direction in directions[1]]
        for start in (5, 0):
            rows = slice(start, start + 5)
            grad_previous = [d.clone() for d in directions[0]] if start else [torch.zeros_like(t) for t in initial_state]
            backward.step(start // 5, grad_state, grad_previous)
            grad_previous[0] += grad_hidden_gates[rows] @ cell.weight_hh.roll(3 * HIDDEN_GATE_ROTATION[count], dims=0)
            grad_state = grad_previous
        actual = [
            (grad_input_gates @ cell.weight_ih).view(2, 5, 4),
            grad_input_gates.sum(dim=0),
            grad_hidden_gates.sum(dim=0).roll(-3 * HIDDEN_GATE_ROTATION[count]),
            *grad_state,
        ]
    torch.testing.assert_close(actual, expected)
