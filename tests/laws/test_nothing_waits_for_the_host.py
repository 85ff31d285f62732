"""Law: no value of a tensor is read on the host where that could mean waiting for an accelerator, forward or backward."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.heads import HEADS, build_head


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("implementation", ["eager", "chunked"])
@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
@pytest.mark.parametrize(("query", "rows"), [("learned", 3), ("last", 3), ("mean", 3), ("learned", 0)])
def test_fake_tensors_which_have_no_values(tiny_config, head, implementation, rnn_type, query, rows):
    with FakeTensorMode():
        model = build_head(head, tiny_config, attention_implementation=implementation, rnn_type=rnn_type, attention_query=query)
        ids, mask = torch.zeros(rows, 5, dtype=torch.long), torch.ones(rows, 5, dtype=torch.long)
        labels = {"MaskAttnModel": {}, "MaskAttnForSequenceClassification": {"labels": ids[:, 0]}}.get(head, {"labels": ids})
        outputs = model(ids, mask, output_attentions=True, output_hidden_states=True, **labels)
        loss = outputs.last_hidden_state.sum() + outputs.pooler_output.sum() if head == "MaskAttnModel" else outputs.loss
        loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_read_of_a_value_would_be_seen():
    with FakeTensorMode(), pytest.raises(Exception, match="_local_scalar_dense"):
        torch.ones(3).sum().item()
