"""The values at padding, and its place and amount, change neither outputs nor gradients nor embeddings in training."""

import hypothesis.strategies as st
import torch
from hypothesis import given

from tests.heads import build_labels, compute_loss, run
from tests.masks import MASK_KINDS, ragged_mask
from tests.properties.cases import assert_close, assert_same_bits, cases, move_tokens, randomize_padding


@given(case=cases())
def test_ids_and_labels_at_padding_change_no_bit(case):
    outputs, gradients = run(case.model, case.ids, case.mask, case.labels)
    random_ids = randomize_padding(case.ids, case.mask)
    labels = case.labels
    if labels is not None and labels.dim() == 2:
        labels = randomize_padding(labels, case.mask)
    again, gradients_again = run(case.model, random_ids, case.mask, labels)
    assert_same_bits(again, outputs)
    assert_same_bits(gradients_again, gradients)


@given(case=cases(), fill=st.sampled_from([torch.nan, torch.inf, -torch.inf, 6e4]))
def test_embeddings_at_padding_change_no_bit(case, fill):
    clean = torch.randn(*case.ids.shape, 6, dtype=case.dtype)
    dirty = torch.where(case.mask[..., None], clean, fill)
    results = []
    for inputs in (clean, dirty):
        inputs.requires_grad_()
        results.append(run(case.model, inputs, case.mask, case.labels))
        assert not inputs.grad[~case.mask].any()
        assert inputs.grad.isfinite().all()
    assert torch.equal(clean.grad, dirty.grad)
    for actual, expected in zip(*results, strict=True):
        assert_same_bits(actual, expected)


@given(case=cases(), extra=st.integers(0, 30), kind=st.sampled_from(["right", "left", "holes"]))
def test_moving_and_adding_padding_changes_nothing(case, extra, kind):
    outputs, gradients = run(case.model, case.ids, case.mask, case.labels)
    time = int(case.mask.sum(dim=1).max()) + extra
    fill = torch.randint(12, (len(case.ids), time))
    if case.labels is not None and case.labels.dim() == 2:
        values, fill = torch.stack([case.ids, case.labels], dim=-1), torch.stack([fill, torch.full_like(fill, -100)], dim=-1)
        moved, mask = move_tokens(values, case.mask, time, kind, fill)
        ids, labels = moved.unbind(dim=-1)
    else:
        ids, mask = move_tokens(case.ids, case.mask, time, kind, fill)
        labels = case.labels
    outputs_moved, gradients_moved = run(case.model, ids, mask, labels)
    assert_close(at_tokens(outputs_moved, mask), at_tokens(outputs, case.mask), case.dtype)
    assert_close(gradients_moved, gradients, case.dtype, scale=10)


def at_tokens(outputs, mask):
    """Select outputs and attention weights at tokens, as flat lists; other outputs are unchanged."""
    flat = {}
    for key, value in outputs.items():
        if value.dim() == 4:
            value = value[:, :, 0].transpose(1, 2)
        flat[key] = value[mask] if value.dim() == 3 else value
    return flat


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
