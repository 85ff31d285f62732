import pytest
import torch

from hf_maskattn.model.gate_steps import BACKWARD, STEPS

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
        kept, out = torch.empty(10, 3, dtype=dtype), torch.empty(count, 10, 3, dtype=dtype)
        state = first
        for start in (0, 5):
            now = slice(start, start + 5)
            brought = torch.addmm(cell.bias_hh, state[0], cell.weight_hh.T)
            state = STEPS[count](gates[now], brought, state, kept[now], out[:, now])
            for found, other in zip(state, states[start // 5], strict=True):
                torch.testing.assert_close(found, other)
        before = [torch.cat([one, own[:5]]) for one, own in zip(first, out, strict=True)]
        of_input, of_state, back = BACKWARD[count](gates, kept, before)
        of_after = [direction.clone() for direction in directions[1]]
        for start in (5, 0):
            now = slice(start, start + 5)
            of_before = [d.clone() for d in directions[0]] if start else [torch.zeros_like(t) for t in first]
            back(now, of_after, of_before)
            of_before[0] += of_state[now] @ cell.weight_hh
            of_after = of_before
        found = [(of_input @ cell.weight_ih).view(2, 5, 4), of_input.sum(dim=0), of_state.sum(dim=0), *of_after]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
