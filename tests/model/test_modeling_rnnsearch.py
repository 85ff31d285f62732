import pytest
import torch

from hf_maskattn import RNNSearchForConditionalGeneration
from tests.masks import MASK_KINDS, ragged_mask
from tests.rnnsearch_reference import ReferenceRNNSearch, run_reference

FORMS = [
    {},
    {"rnn_type": "lstm", "decoder_layers": 2, "num_attention_heads": 2, "output_layer": "linear"},
    {"attention_query": "current", "decoder_layers": 2, "encoder_layers": 2},
    {"attention_query": "current", "rnn_type": "lstm", "share_embeddings": False, "source_vocab_size": 30},
    {"attention_query": "current", "input_feeding": True, "num_attention_heads": 2, "tie_word_embeddings": False},
    {"attention_query": "current", "input_feeding": True, "rnn_type": "lstm", "decoder_layers": 2, "output_size": None},
]


@pytest.mark.parametrize("mask_kind", MASK_KINDS)
@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_outputs_and_gradients_are_those_of_single_rows_step_by_step(tiny_rnnsearch_config, form, implementation, mask_kind):
    config = tiny_rnnsearch_config(attention_implementation=implementation, **form)
    model = RNNSearchForConditionalGeneration(config).train()
    reference = ReferenceRNNSearch(model)
    mask, target_mask = ragged_mask(4, 6, mask_kind), ragged_mask(4, 5, mask_kind)
    source, target = torch.randint(3, 30, mask.shape), torch.randint(3, 30, target_mask.shape)

    outputs = model(source, mask, target, target_mask, output_attentions=True, output_hidden_states=True, use_cache=False)
    logits = torch.where(target_mask[..., None], outputs.logits, 0)
    got = (logits, outputs.cross_attentions[0], *outputs.decoder_hidden_states[1:])
    scores, maps, states = run_reference(reference, source, mask, target, target_mask)
    expected = (scores, maps, *states)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)

    directions = [torch.randn_like(tensor) for tensor in expected]
    sum((tensor * d).sum() for tensor, d in zip(got, directions, strict=True)).backward()
    sum((tensor * d).sum() for tensor, d in zip(expected, directions, strict=True)).backward()
    gradients = reference.gradients()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
