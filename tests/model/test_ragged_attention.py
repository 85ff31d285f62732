import pytest
import torch

from hf_maskattn.model.attention import AdditiveAttention
from tests.graphs import nodes_behind, saved_tensors
from tests.masks import MASK_KINDS, ragged_mask

# Eleven divides no other size here: a tensor that has an entry for every column of the padded batch, and no other, is told
# by its number of elements.
BATCH, COLUMNS, QUERIES, HEADS, UNITS, WIDTH = 4, 11, 3, 2, 10, 14


def sizes_in_graph(tensor):
    """The number of elements of all that the graph behind a tensor keeps, and of all that flows through it backward."""
    kept, flowing = [], []

    def watch(gradients, _):
        flowing.extend(gradient.numel() for gradient in gradients if gradient is not None)

    for node in nodes_behind(tensor):
        node.register_hook(watch)
        kept.extend(value.numel() for value in saved_tensors(node))
    tensor.sum().backward()
    return kept, flowing


def attend(implementation, mask):
    """The context of random queries, and the memory that it reads."""
    attention = AdditiveAttention(
        query_size=3, memory_size=WIDTH, attention_size=UNITS, num_heads=HEADS, implementation=implementation
    )
    torch.nn.init.normal_(attention.energy)
    memory = torch.randn(BATCH, COLUMNS, WIDTH, requires_grad=True)
    return attention(torch.randn(BATCH, QUERIES, 3), memory, mask)[0], memory


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_no_pad_score_is_in_the_graph(kind):
    mask = ragged_mask(BATCH, COLUMNS, kind)
    real = int(mask.sum())
    assert real % COLUMNS
    context, memory = attend("ragged", mask)
    kept, flowing = sizes_in_graph(context)
    assert {real * QUERIES * UNITS, real * QUERIES * HEADS} <= set(kept) & set(flowing)  # tanh and its energies, the scores
    assert [size for size in kept if size % COLUMNS == 0] == []
    assert [size for size in flowing if size % COLUMNS == 0] == [memory.numel()]  # the gradient that leaves the graph


def test_method_1_has_a_score_for_every_pad():
    kept, flowing = sizes_in_graph(attend("eager", ragged_mask(BATCH, COLUMNS, "holes"))[0])
    everything = BATCH * COLUMNS * QUERIES
    assert {everything * UNITS, everything * HEADS} <= set(kept) & set(flowing)
