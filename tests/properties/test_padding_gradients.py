"""An embedding that occurs only at padding is bit for bit the same after training."""

import torch
from hypothesis import given

from tests.heads import build_labels, compute_loss
from tests.masks import MASK_KINDS, ragged_mask
from tests.properties.cases import cases


# One layer keeps an example short. With tied embeddings an embedding would be trained as a class, too.
@given(case=cases(dtypes=(torch.float64, torch.float32), num_hidden_layers=1, tie_word_embeddings=False))
def test_embeddings_at_padding_are_not_trained(case):
    embeddings = case.model.get_input_embeddings().weight
    original = embeddings.detach().clone()
    optimizer = torch.optim.AdamW(case.model.parameters(), lr=1e-2, weight_decay=0.0, fused=True)
    for step in range(24):
        mask = ragged_mask(*case.mask.shape, MASK_KINDS[step % 4])
        ids = torch.where(mask, torch.randint(6, mask.shape), torch.randint(6, 12, mask.shape))
        optimizer.zero_grad()
        compute_loss(case.model, ids, mask, build_labels(case.model, mask)).backward()
        optimizer.step()
    assert torch.equal(embeddings[6:], original[6:])
    assert not torch.equal(embeddings[:6], original[:6])
