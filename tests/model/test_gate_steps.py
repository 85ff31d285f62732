import pytest
import torch

from hf_maskattn.model.gate_steps import BACKWARD, SHIFT, STEPS

CELLS = {1: torch.nn.GRUCell, 2: torch.nn.LSTMCell}


@pytest.mark.parametrize("count", CELLS, ids=["gru", "lstm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_two_steps_and_their_gradients_are_those_of_torchs_cell(count, dtype):
    cell = CELLS[count](4, 3).to(dtype)
    x, first = torch.randn(2, 5, 4, dtype=dtype), [torch.randn(5, 3, dtype=dtype, requires_grad=True) for _ in range(count)]
    x.requires_grad_()
    state, states = first, []
    for token in x:
        state = cell(token, state if count == 2 else state[0])
        state = [*state] if count == 2 else [state]
        states.append(state)
    directions = [[torch.randn(5, 3, dtype=dtype) for _ in range(count)] for _ in range(2)]
    total = sum((s * d).sum() for one, two in zip(states, directions, strict=True) for s, d in zip(one, two, strict=True))
    wanted = [x, cell.bias_ih, cell.bias_hh, *first]
    expected = torch.autograd.grad(total, wanted)

    with torch.no_grad():
        gates = torch.addmm(cell.bias_ih, x.flatten(0, 1), cell.weight_ih.T)
        brought, out = torch.empty_like(gates), torch.empty(count, 10, 3, dtype=dtype)
        state = first
        for start in (0, 5):
            now = slice(start, start + 5)
            torch.addmm(cell.bias_hh, state[0], cell.weight_hh.T, out=brought[now])
            state = STEPS[count](gates[now], brought[now], state, out[:, now])
            for found, other in zip(state, states[start // 5], strict=True):
                torch.testing.assert_close(found, other)
        before = [torch.cat([one, own[:5]]) for one, own in zip(first, out, strict=True)]
        both = torch.empty(10, 12, dtype=dtype)
        back = BACKWARD[count](gates, brought[:, -3:], before, both, [5, 5])
        of_brought, of_input = both[:, : gates.shape[1]], both[:, -gates.shape[1] :]
        of_after = [direction.clone() for direction in directions[1]]
        for start in (5, 0):
            now = slice(start, start + 5)
            of_before = [d.clone() for d in directions[0]] if start else [torch.zeros_like(t) for t in first]
            back(start // 5, of_after, of_before)
            of_before[0] += of_brought[now] @ cell.weight_hh.roll(3 * SHIFT[count], dims=0)
            of_after = of_before
        found = [
            (of_input @ cell.weight_ih).view(2, 5, 4),
            of_input.sum(dim=0),
            of_brought.sum(dim=0).roll(-3 * SHIFT[count]),
            *of_after,
        ]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
