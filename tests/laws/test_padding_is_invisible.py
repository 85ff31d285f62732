"""Law: what stands at a pad, and where pads stand, changes neither outputs nor gradients."""

import pytest
import torch

from tests.heads import HEADS, build_head, labels_for, run
from tests.masks import MASK_KINDS, ragged_mask

VARIANTS = [
    pytest.param({"rnn_type": rnn, "attention_implementation": how, "num_hidden_layers": layers}, id=f"{rnn}-{how}-{layers}")
    for rnn, how, layers in [("lstm", "eager", 2), ("lstm", "ragged", 1), ("gru", "eager", 1), ("gru", "ragged", 2)]
]


def assert_same_bits(one, other):
    for found, expected in zip(one, other, strict=True):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value), key


@pytest.mark.parametrize("mask_kind", MASK_KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("head", HEADS)
def test_junk_ids_under_the_mask_change_no_bit(tiny_config, head, variant, mask_kind):
    model = build_head(head, tiny_config, **variant)
    mask = ragged_mask(4, 7, mask_kind)
    ids = torch.randint(40, (4, 7))
    labels = labels_for(model, mask)
    expected = run(model, ids, mask, labels)
    junk = torch.where(mask, ids, torch.randint(-(10**6), 10**6, ids.shape))
    if labels is not None and labels.dim() == 2:
        labels = torch.where(mask, labels, torch.randint(-(10**6), 10**6, ids.shape))
    assert_same_bits(run(model, junk, mask, labels), expected)


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("mask_kind", MASK_KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_junk_embeddings_under_the_mask_change_no_bit(tiny_config, variant, mask_kind, junk):
    model = build_head("MaskAttnForTokenClassification", tiny_config, **variant)
    mask = ragged_mask(4, 7, mask_kind)
    clean = torch.randn(4, 7, 6)
    dirty = torch.where(mask[..., None], clean, junk)
    labels = labels_for(model, mask)
    results = []
    for inputs in (clean, dirty):
        inputs.requires_grad_()
        results.append(run(model, inputs, mask, labels))
        assert torch.equal(inputs.grad[~mask], torch.zeros_like(inputs.grad[~mask]))
    assert torch.equal(clean.grad, dirty.grad)
    assert_same_bits(*results)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("head", HEADS)
def test_moving_and_adding_pads_changes_nothing(tiny_config, head, variant):
    model = build_head(head, tiny_config, **variant)
    lengths = [5, 1, 4, 0]
    rows = [torch.randint(40, (n,)) for n in lengths]
    row_labels = [torch.randint(3, (n,)) for n in lengths]
    sequence_labels = torch.randint(3, (4,))
    results = []
    for kind in ("right", "left", "holes", "much longer"):
        time = 5 if kind == "right" else 8 if kind != "much longer" else 60
        ids, labels = torch.zeros(4, time, dtype=torch.long), torch.full((4, time), -100)
        mask = torch.zeros(4, time, dtype=torch.bool)
        for row, n in enumerate(lengths):
            columns = {"left": torch.arange(time - n, time), "holes": torch.randperm(time)[:n].sort().values}.get(
                kind, torch.arange(n)
            )
            ids[row, columns], labels[row, columns], mask[row, columns] = rows[row], row_labels[row], True
        if head == "MaskAttnForSequenceClassification":
            labels = sequence_labels
        outputs, gradients = run(model, ids, mask, None if head == "MaskAttnModel" else labels)
        at_tokens = {
            key: value[mask] if value.dim() == 3 else value[:, :, 0].transpose(1, 2)[mask] if value.dim() == 4 else value
            for key, value in outputs.items()
        }
        results.append((at_tokens, gradients))
    for result in results[1:]:
        for found, expected in zip(result, results[0], strict=True):
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value, atol=1e-6, rtol=0, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("implementation", ["eager", "ragged"])
def test_a_nan_embedding_row_used_only_at_pads_stays_out(tiny_config, implementation):
    model = build_head("MaskAttnForSequenceClassification", tiny_config, attention_implementation=implementation)
    with torch.no_grad():
        model.maskattn.word_embeddings.weight[7] = float("nan")
    mask = ragged_mask(4, 7, "holes")
    ids = torch.randint(8, 40, (4, 7)).masked_fill(~mask, 7)
    outputs, gradients = run(model, ids, mask, torch.randint(3, (4,)))
    assert all(value.isfinite().all() for value in [*outputs.values(), *gradients.values()])
    assert not gradients["maskattn.word_embeddings.weight"][7].any()
