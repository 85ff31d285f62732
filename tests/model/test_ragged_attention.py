import torch

from hf_maskattn.model.attention import AdditiveAttention
from tests.graphs import saved_shapes
from tests.masks import ragged_mask


def test_no_pad_score_is_in_the_graph():
    mask = ragged_mask(4, 11, "holes")
    real = int(mask.sum())
    assert real < mask.numel()
    for implementation, expected in (("ragged", real), ("eager", mask.numel())):
        attention = AdditiveAttention(query_size=3, memory_size=6, attention_size=8, implementation=implementation)
        torch.nn.init.normal_(attention.energy)
        context, _ = attention(torch.randn(4, 2, 3), torch.randn(4, 11, 6), mask)
        # tanh keeps one number for each query, each token and each of the 8 units; 2 queries a row
        tanh = [s for s in saved_shapes(context) if s[-1] == 8 and torch.Size(s).numel() == expected * 2 * 8]
        assert tanh, f"{implementation}: {saved_shapes(context)}"
        assert implementation == "eager" or mask.numel() * 2 * 8 not in [torch.Size(s).numel() for s in saved_shapes(context)]
