import copy

import pytest
import torch

from hf_maskattn.model.attention import AdditiveAttention
from hf_maskattn.model.decoding_state import DecodingState, Memory, count_rows_per_source
from hf_maskattn.model.masking import RealColumns

MASK = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 0], [0, 0, 0]]).bool()


def build(implementation="eager", fed=True):
    torch.manual_seed(0)
    attention = AdditiveAttention(query_size=2, memory_size=4, attention_size=2, implementation=implementation)
    torch.nn.init.normal_(attention.energy)
    keys, values = attention.prepare(torch.randn(4, 3, 4), MASK)
    layers = ((torch.randn(4, 2), torch.randn(4, 2)), (torch.randn(4, 2), torch.randn(4, 2)))
    memory = Memory(keys.detach(), values, MASK, RealColumns(0, 3, 3))
    return DecodingState(layers, torch.randn(4, 4) if fed else None, memory, seen_tokens=5), attention


def tensors(state):
    return [tensor for layer in state.layers for tensor in layer] + ([] if state.context is None else [state.context])


@pytest.mark.parametrize("fed", [True, False])
def test_reordering_moves_every_state_and_not_the_memory(fed):
    state, _ = build(fed=fed)
    before = copy.deepcopy(state)
    state.reorder_cache(torch.tensor([1, 0, 2, 2]))
    for found, expected in zip(tensors(state), tensors(before), strict=True):
        assert torch.equal(found, expected[[1, 0, 2, 2]])
    assert torch.equal(state.memory.keys, before.memory.keys)
    assert state.get_seq_length() == 5


@pytest.mark.parametrize("implementation", ["eager", "ragged"])
def test_selecting_rows_takes_their_sources_along(implementation):
    state, attention = build(implementation)
    before = copy.deepcopy(state)
    rows = torch.tensor([2, 0, 3, 1, 1])
    state.batch_select_indices(rows)
    assert state.batch_size == 5
    for found, expected in zip(tensors(state), tensors(before), strict=True):
        assert torch.equal(found, expected[rows])
    query = torch.randn(4, 1, 2)
    context, weights = attention(query, before.memory[:2], before.memory.mask)
    context_of_rows, weights_of_rows = attention(query[rows], state.memory[:2], state.memory.mask)
    assert torch.equal(context_of_rows, context[rows])
    assert torch.equal(weights_of_rows, weights[rows])


def test_repeated_rows_share_their_source():
    state, _ = build()
    before = copy.deepcopy(state)
    state.batch_repeat_interleave(2)
    assert (state.batch_size, state.rows_per_source) == (8, 2)
    for found, expected in zip(tensors(state), tensors(before), strict=True):
        assert torch.equal(found, expected.repeat_interleave(2, dim=0))
    assert torch.equal(state.memory.mask, MASK)


@pytest.mark.parametrize("implementation", ["eager", "ragged"])
def test_selecting_repeated_rows_gives_each_its_own_source(implementation):
    state, _ = build(implementation)
    before = copy.deepcopy(state)
    state.batch_repeat_interleave(3)
    rows = torch.tensor([7, 0, 3, 1])  # of the sources 2, 0, 1, 0
    state.batch_select_indices(rows)
    before.batch_select_indices(torch.tensor([2, 0, 1, 0]))
    assert state.rows_per_source == 1
    for found, expected in zip([*tensors(state), *state.memory[:3]], [*tensors(before), *before.memory[:3]], strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("repeats", [0, 2])
def test_a_state_without_rows_has_no_source(repeats):
    state, _ = build()
    if repeats:
        state.batch_select_indices(torch.tensor([], dtype=torch.long))
    state.batch_repeat_interleave(repeats)
    assert (state.batch_size, len(state.memory.mask), state.rows_per_source) == (0, 0, 1)


SOURCES = torch.randn(3, 5, 2), torch.tensor([[1, 1, 0, 0, 0], [1, 0, 1, 1, 0], [0, 0, 0, 0, 0]]).bool()


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([0, 0, 1, 1, 2, 2], 2),
        ([0, 0, 0, 1, 1, 1], 3),
        ([0, 0], 2),
        ([0, 1, 2], 1),
        ([0, 0, 1, 2], 1),
        ([0, 0, 1], 1),
        ([0, 0, 1, 1, 1, 1], 2),
        ([0, 1, 1], 1),
        ([0], 1),
        ([], 1),
    ],
)
def test_rows_of_one_source_are_counted(rows, expected):
    memory, mask = (tensor[torch.tensor(rows, dtype=torch.long)] for tensor in SOURCES)
    with torch.no_grad():
        assert count_rows_per_source(memory, mask) == expected
    assert count_rows_per_source(memory, mask) == 1  # each has a gradient of its own


@torch.no_grad()
def test_rows_with_other_masks_have_other_sources():
    assert count_rows_per_source(torch.zeros(2, 2, 4), torch.tensor([[True, True], [True, False]])) == 1


def test_it_tells_generate_that_it_is_no_cache_of_keys():
    state, _ = build()
    assert not state.is_compileable
    assert not state.is_croppable
    assert not all(state.is_linear)
