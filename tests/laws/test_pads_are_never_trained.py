"""Law: an embedding that occurs only under the mask is bit for bit the same after a training."""

import pytest
import torch

from tests.heads import HEADS, build_head, labels_for, run
from tests.masks import ragged_mask


@pytest.mark.parametrize("implementation", ["eager", "ragged"])
@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
@pytest.mark.parametrize("head", [name for name in HEADS if name != "MaskAttnForMaskedLM"])
def test_a_hundred_steps_of_adamw(tiny_config, head, rnn_type, implementation):
    model = build_head(head, tiny_config, rnn_type=rnn_type, attention_implementation=implementation)
    embeddings = model.get_input_embeddings().weight
    before = embeddings.detach().clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for step in range(100):
        mask = ragged_mask(3, 6, ("right", "left", "holes", "empty")[step % 4])
        ids = torch.where(mask, torch.randint(20, mask.shape), torch.randint(20, 40, mask.shape))
        run(model, ids, mask, labels_for(model, mask))
        optimizer.step()
    assert torch.equal(embeddings[20:], before[20:])
    assert (embeddings[:20] != before[:20]).all()
