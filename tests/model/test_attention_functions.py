import pytest
import torch

from hf_maskattn.model import attention_functions
from hf_maskattn.model.attention import AdditiveAttention
from hf_maskattn.model.attention_functions import (
    _tile_shape,
    _TiledScores,
    energy_matrix,
    tanh_of_sum,
)
from tests.graphs import collect_nodes, saved_tensors
from tests.masks import MASK_KINDS, ragged_mask
from tests.tolerances import OUTPUT, OUTPUT_BY_DTYPE

# Eleven divides no other size here, so that a tensor with an entry for every column of the padded batch is recognized by its
# number of elements.
BATCH, COLUMNS, QUERIES, HEADS, UNITS, WIDTH = 4, 11, 3, 2, 10, 14


def sizes_in_graph(tensor):
    """Number of elements of each tensor that the graph of a tensor saves, and of each gradient in it."""
    saved, gradients_of_graph = [], []

    def watch(gradients, _):
        gradients_of_graph.extend(gradient.numel() for gradient in gradients if gradient is not None)

    for node in collect_nodes(tensor):
        node.register_hook(watch)
        saved.extend(value.numel() for value in saved_tensors(node))
    tensor.sum().backward()
    return saved, gradients_of_graph


def attend(implementation, mask):
    """Attend with random queries; returns the context and the memory."""
    attention = AdditiveAttention(
        query_size=3, memory_size=WIDTH, attention_size=UNITS, num_heads=HEADS, implementation=implementation
    )
    torch.nn.init.normal_(attention.energy)
    memory = torch.randn(BATCH, COLUMNS, WIDTH, requires_grad=True)
    return attention(torch.randn(BATCH, QUERIES, 3), memory, mask)[0], memory


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_ragged_graph_has_no_padding_score(kind):
    mask = ragged_mask(BATCH, COLUMNS, kind)
    num_tokens = int(mask.sum())
    assert num_tokens % COLUMNS
    context, memory = attend("ragged", mask)
    saved, gradients = sizes_in_graph(context)
    sizes = {num_tokens * QUERIES * UNITS, num_tokens * QUERIES * HEADS}  # tanh, scores
    assert sizes <= set(saved) & set(gradients)
    assert [size for size in saved if size % COLUMNS == 0] == []
    assert [size for size in gradients if size % COLUMNS == 0] == [memory.numel()]  # the gradient of the memory


def test_eager_graph_has_padding_scores():
    saved, gradients = sizes_in_graph(attend("eager", ragged_mask(BATCH, COLUMNS, "holes"))[0])
    num_scores = BATCH * COLUMNS * QUERIES
    assert {num_scores * UNITS, num_scores * HEADS} <= set(saved) & set(gradients)


SIZES = {"query_size": 8, "memory_size": 8, "attention_size": 8}


@pytest.fixture(params=[1, 100, 700, 10**6], ids=lambda size: f"{size} bytes")
def tile_bytes(request, monkeypatch):
    """Tiles of one query and key, of a part of the keys, of some queries, of all."""
    monkeypatch.setattr(attention_functions, "TILE_BYTES", request.param)


def inputs(dtype=torch.float64):
    shapes = ((2, 5, 4), (2, 7, 4), (2, 2))
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.usefixtures("tile_bytes")
def test_tiled_scores_match_formula():
    queries, keys, energy = inputs()
    scores = _TiledScores.apply(queries, keys, energy)
    expected = (torch.tanh(queries[:, :, None] + keys[:, None]) @ energy_matrix(energy)).permute(0, 3, 1, 2)
    torch.testing.assert_close(scores, expected, atol=OUTPUT_BY_DTYPE[torch.float64], rtol=0)
    assert torch.autograd.gradcheck(_TiledScores.apply, (queries, keys, energy), fast_mode=True)


def test_tile_shape_fits_tile_bytes(monkeypatch):
    monkeypatch.setattr(attention_functions, "TILE_BYTES", 2**16)
    for batch, num_queries, num_keys in [(1, 1, 1), (4, 256, 256), (4, 1, 4096), (64, 3, 5), (512, 2, 2)]:
        queries, keys = torch.empty(batch, num_queries, 32), torch.empty(batch, num_keys, 32)
        height, width = _tile_shape(queries, keys)
        assert 1 <= height <= num_queries
        assert 1 <= width <= num_keys
        assert batch * height * width * 32 * 4 <= max(2**16, batch * 32 * 4)


def test_chunked_saves_only_scores_for_backward(monkeypatch):
    monkeypatch.setattr(attention_functions, "TILE_BYTES", 2**10)
    mask = torch.ones(2, 11, dtype=torch.bool)
    largest = {}
    for implementation in ("eager", "chunked"):
        attention = AdditiveAttention(**SIZES, implementation=implementation)
        torch.nn.init.normal_(attention.energy)
        context, _ = attention(torch.randn(2, 9, 8), torch.randn(2, 11, 8), mask)
        largest[implementation] = max(value.numel() for node in collect_nodes(context) for value in saved_tensors(node))
    assert largest == {"eager": 2 * 9 * 11 * 8, "chunked": 2 * 9 * 11}


def test_chunked_rejects_second_derivative():
    attention = AdditiveAttention(**SIZES, implementation="chunked")
    torch.nn.init.normal_(attention.energy)
    query = torch.randn(1, 2, 8, requires_grad=True)
    context, _ = attention(query, torch.randn(1, 3, 8), torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(NotImplementedError, match=r'can be differentiated once\. Use "eager"'):
        torch.autograd.grad(context.sum(), query, create_graph=True)


def test_chunked_without_queries_or_keys():
    attention = AdditiveAttention(**SIZES, implementation="chunked")
    torch.nn.init.normal_(attention.energy)
    for num_queries, num_keys in [(0, 3), (2, 0)]:
        context, weights = attention(
            torch.randn(1, num_queries, 8), torch.randn(1, num_keys, 8), torch.ones(1, num_keys, dtype=torch.bool)
        )
        assert context.shape == (1, num_queries, 8)
        assert weights.shape == (1, 1, num_queries, num_keys)
        assert not context.any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_tanh_of_sum_matches_torch(dtype):
    left = torch.cat([torch.linspace(-20, 20, 4001), torch.tensor([0.0, 1e-6, -1e-6, 1e30, -1e30])]).to(dtype)
    right = torch.tensor([[0.0], [0.25]], dtype=dtype)
    actual = tanh_of_sum(left, right)
    torch.testing.assert_close(actual, torch.tanh(left + right), atol=OUTPUT if dtype == torch.float32 else 0, rtol=0)
    assert actual.abs().max() <= 1
    with torch.no_grad():
        assert torch.equal(tanh_of_sum(left, right), actual)


def test_tanh_of_sum_gradients():
    shapes = ((3, 1, 4), (2, 4))
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(tanh_of_sum, inputs)
    assert torch.autograd.gradgradcheck(tanh_of_sum, inputs)


def test_chunked_without_gradient_keeps_tile_bytes(monkeypatch):
    attention = AdditiveAttention(**SIZES, implementation="chunked")
    torch.nn.init.normal_(attention.energy)
    query, memory, mask = torch.randn(2, 3, 8), torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    expected = attention(query, memory, mask)
    tiled = []
    tiled_scores = attention_functions._TiledScores.apply
    monkeypatch.setattr(_TiledScores, "apply", lambda *args: tiled.append(args) or tiled_scores(*args))
    for tile_bytes, num_tiled in [(2 * 3 * 5 * 8 * 4, 0), (2 * 3 * 5 * 8 * 4 - 1, 1)]:
        monkeypatch.setattr(attention_functions, "TILE_BYTES", tile_bytes)
        with torch.no_grad():
            torch.testing.assert_close(attention(query, memory, mask), expected, atol=OUTPUT, rtol=0)
        assert len(tiled) == num_tiled
