"""A row without a token has weights 0, context 0, a finite loss and no gradient in layers that read tokens."""

import pytest
import torch
from hypothesis import given

from tests.heads import HEADS, build_head, build_labels, label_arguments, run
from tests.properties.cases import cases


@given(case=cases(attention_dropout_prob=0.5))
def test_batch_of_empty_rows(case):
    mask = torch.zeros_like(case.mask)
    labels = case.labels if case.labels is None or case.labels.dim() == 1 else torch.full_like(case.ids, -100)
    outputs, gradients = run(case.model, case.ids, mask, labels)
    assert not outputs["attentions.0"].any()
    assert all(value.isfinite().all() for value in [*outputs.values(), *gradients.values()])
    for key, gradient in gradients.items():
        if "classifier" not in key and "lm_head" not in key:
            assert not gradient.any(), key
    if labels is None:
        assert not outputs["pooler_output.0"].any()
        assert not outputs["last_hidden_state.0"].any()


@given(case=cases(heads=("MaskAttnModel",)))
def test_empty_row_among_others(case):
    mask = case.mask.clone()
    mask[0] = False
    outputs, gradients = run(case.model, case.ids, mask)
    assert all(not value[0].any() for key, value in outputs.items())
    assert all(value.isfinite().all() for value in gradients.values())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
def test_batch_without_columns(tiny_config, head, implementation):
    model = build_head(head, tiny_config, attention_implementation=implementation)
    ids = torch.zeros(2, 0, dtype=torch.long)
    labels = label_arguments(model, ids.bool(), build_labels(model, ids.bool()))
    outputs = model(ids, output_attentions=True, output_hidden_states=True, **labels)
    assert outputs.attentions[0].shape == (2, 1, 1, 0)
    single = model(torch.zeros(2, 3, dtype=torch.long), attention_mask=torch.zeros(2, 3))
    if head == "MaskAttnForSequenceClassification":
        assert torch.equal(outputs.logits, single.logits)
    assert model(torch.zeros(0, 3, dtype=torch.long))[0].shape[0] == 0
    sum(output.sum() for output in outputs.to_tuple() if torch.is_tensor(output)).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
