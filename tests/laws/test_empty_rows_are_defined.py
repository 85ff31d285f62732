"""Law: a row without a real token gives weights 0, context 0, a finite loss and no gradient to what reads tokens."""

import pytest
import torch

from tests.heads import HEADS, build_head, labels_for, run


@pytest.mark.parametrize("implementation", ["eager", "ragged"])
@pytest.mark.parametrize("query", ["learned", "last", "mean"])
@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
@pytest.mark.parametrize("head", HEADS)
def test_all_rows_empty(tiny_config, head, rnn_type, query, implementation):
    model = build_head(
        head,
        tiny_config,
        rnn_type=rnn_type,
        attention_query=query,
        attention_implementation=implementation,
        attention_dropout_prob=0.5,
    )
    mask = torch.zeros(3, 4, dtype=torch.bool)
    outputs, gradients = run(model, torch.randint(40, (3, 4)), mask, labels_for(model, mask))
    assert not outputs["attentions.0"].any()
    assert all(value.isfinite().all() for value in [*outputs.values(), *gradients.values()])
    for key, gradient in gradients.items():
        if "classifier" not in key and "lm_head" not in key:
            assert not gradient.any(), key
    if head == "MaskAttnModel":
        assert not outputs["pooler_output.0"].any()
        assert not outputs["last_hidden_state.0"].any()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("implementation", ["eager", "ragged"])
def test_a_batch_without_columns(tiny_config, head, implementation):
    model = build_head(head, tiny_config, attention_implementation=implementation).eval()
    outputs = model(torch.zeros(2, 0, dtype=torch.long), output_attentions=True, output_hidden_states=True)
    assert outputs.attentions[0].shape == (2, 1, 1, 0)
    alone = model(torch.zeros(2, 3, dtype=torch.long), attention_mask=torch.zeros(2, 3))
    if head == "MaskAttnForSequenceClassification":
        assert torch.equal(outputs.logits, alone.logits)
