import pytest
import torch

from hf_maskattn.model import chunked_attention
from hf_maskattn.model.attention import AdditiveAttention
from hf_maskattn.model.chunked_attention import _tile_shape, _TiledScores
from hf_maskattn.model.eager_attention import heads_apart
from tests.graphs import nodes_behind, saved_tensors
from tests.tolerances import OUTPUT_BY_DTYPE

SIZES = {"query_size": 8, "memory_size": 8, "attention_size": 8}


@pytest.fixture(params=[1, 100, 700, 10**6], ids=lambda size: f"{size} bytes")
def tile_bytes(request, monkeypatch):
    """Tiles of one query and key, of a part of the keys, of some queries, of everything."""
    monkeypatch.setattr(chunked_attention, "TILE_BYTES", request.param)


def inputs(dtype=torch.float64):
    shapes = ((2, 5, 4), (2, 7, 4), (2, 2))
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.usefixtures("tile_bytes")
def test_scores_and_gradients_are_those_of_the_formula():
    queries, keys, energy = inputs()
    scores = _TiledScores.apply(queries, keys, energy)
    expected = (torch.tanh(queries[:, :, None] + keys[:, None]) @ heads_apart(energy)).permute(0, 3, 1, 2)
    torch.testing.assert_close(scores, expected, atol=OUTPUT_BY_DTYPE[torch.float64], rtol=0)
    assert torch.autograd.gradcheck(_TiledScores.apply, (queries, keys, energy))


def test_a_tile_fits_its_budget(monkeypatch):
    monkeypatch.setattr(chunked_attention, "TILE_BYTES", 2**16)
    for batch, num_queries, num_keys in [(1, 1, 1), (4, 256, 256), (4, 1, 4096), (64, 3, 5), (512, 2, 2)]:
        queries, keys = torch.empty(batch, num_queries, 32), torch.empty(batch, num_keys, 32)
        height, width = _tile_shape(queries, keys)
        assert 1 <= height <= num_queries
        assert 1 <= width <= num_keys
        assert batch * height * width * 32 * 4 <= max(2**16, batch * 32 * 4)


def test_nothing_of_the_size_of_all_pairs_and_units_is_kept(monkeypatch):
    monkeypatch.setattr(chunked_attention, "TILE_BYTES", 2**10)
    mask = torch.ones(2, 11, dtype=torch.bool)
    largest = {}
    for implementation in ("eager", "chunked"):
        attention = AdditiveAttention(**SIZES, implementation=implementation)
        torch.nn.init.normal_(attention.energy)
        context, _ = attention(torch.randn(2, 9, 8), torch.randn(2, 11, 8), mask)
        largest[implementation] = max(value.numel() for node in nodes_behind(context) for value in saved_tensors(node))
    assert largest == {"eager": 2 * 9 * 11 * 8, "chunked": 2 * 9 * 11}


def test_a_second_derivative_is_refused():
    attention = AdditiveAttention(**SIZES, implementation="chunked")
    torch.nn.init.normal_(attention.energy)
    query = torch.randn(1, 2, 8, requires_grad=True)
    context, _ = attention(query, torch.randn(1, 3, 8), torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(NotImplementedError, match='differentiated once: take "eager"'):
        torch.autograd.grad(context.sum(), query, create_graph=True)


def test_rows_without_queries_or_keys():
    attention = AdditiveAttention(**SIZES, implementation="chunked")
    torch.nn.init.normal_(attention.energy)
    for num_queries, num_keys in [(0, 3), (2, 0)]:
        context, weights = attention(
            torch.randn(1, num_queries, 8), torch.randn(1, num_keys, 8), torch.ones(1, num_keys, dtype=torch.bool)
        )
        assert context.shape == (1, num_queries, 8)
        assert weights.shape == (1, 1, num_queries, num_keys)
        assert not context.any()
