"""No value of a tensor is read on the host where that would wait for an accelerator, forward or backward."""

from itertools import product

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from hf_maskattn import RNNSearchForConditionalGeneration
from hf_maskattn.model.generation import CACHE_NAME
from tests.heads import HEADS, build_head, label_arguments

DEFAULT = "eager", "lstm", "learned", 3
SETTINGS = [*product(["eager", "chunked"], ["lstm", "gru"], ["learned", "last", "mean"], [3, 0])]


@pytest.mark.parametrize(
    ("head", "implementation", "rnn_type", "query", "rows"),
    [
        # Every setting is tested with one head by default, and every head with one setting.
        pytest.param(head, *setting, marks=[] if head == "MaskAttnModel" or setting == DEFAULT else [pytest.mark.slow])
        for head, setting in product(HEADS, SETTINGS)
    ],
)
def test_encoder_on_fake_tensors(tiny_config, head, implementation, rnn_type, query, rows):
    with FakeTensorMode():
        model = build_head(head, tiny_config, attention_implementation=implementation, rnn_type=rnn_type, attention_query=query)
        ids, mask = torch.zeros(rows, 2, dtype=torch.long), torch.ones(rows, 2, dtype=torch.long)
        labels = {"MaskAttnModel": None, "MaskAttnForSequenceClassification": ids[:, 0]}.get(head, ids)
        requests = {"output_attentions": True, "output_hidden_states": True}
        outputs = model(ids, mask, **requests, **label_arguments(model, mask, labels))
        loss = outputs.last_hidden_state.sum() + outputs.pooler_output.sum() if head == "MaskAttnModel" else outputs.loss
        loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("query", "feeding", "implementation", "rnn_type"),
    [
        ("previous", False, "chunked", "gru"),
        ("previous", False, "chunked", "lstm"),
        ("previous", False, "eager", "gru"),
        ("current", False, "chunked", "lstm"),
        ("current", True, "eager", "gru"),
    ],
)
def test_encoder_decoder_on_fake_tensors(tiny_rnnsearch_config, implementation, rnn_type, query, feeding):
    with FakeTensorMode():
        config = tiny_rnnsearch_config(
            attention_implementation=implementation,
            rnn_type=rnn_type,
            attention_query=query,
            input_feeding=feeding,
            decoder_layers=2 if query == "current" else 1,
            max_target_length=1,
        )
        model = RNNSearchForConditionalGeneration(config)
        ids, mask, labels = torch.zeros(3, 3, dtype=torch.long), torch.ones(3, 3), torch.zeros(3, 2, dtype=torch.long)
        outputs = model(ids, mask, labels=labels, output_attentions=True, output_hidden_states=True)
        outputs.loss.backward()
        state = model(ids, mask, labels)[CACHE_NAME]
        state.reorder_cache(torch.zeros(3, dtype=torch.long))
        model(decoder_input_ids=labels, decoder_attention_mask=torch.ones(3, 4), **{CACHE_NAME: state})
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_fake_tensors_raise_where_a_value_is_read():
    with FakeTensorMode(), pytest.raises(Exception, match="_local_scalar_dense"):
        torch.ones(3).sum().item()
