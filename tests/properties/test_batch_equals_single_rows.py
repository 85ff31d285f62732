"""A padded batch has the outputs and gradients of its rows run one at a time, without padding, by torch's own modules."""

import pytest
import torch

from hf_maskattn import MaskAttnModel
from tests.masks import MASK_KINDS, ragged_mask
from tests.reference import ReferenceEncoder, run_reference
from tests.tolerances import GRADIENT, OUTPUT, assert_near


@pytest.mark.parametrize("mask_kind", MASK_KINDS)
@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
@pytest.mark.parametrize(("bidirectional", "query", "heads"), [(True, "learned", 1), (True, "last", 2), (False, "mean", 4)])
def test_batch_matches_single_row_reference(
    tiny_config, rnn_type, layers, implementation, mask_kind, bidirectional, query, heads
):
    config = tiny_config(
        rnn_type=rnn_type,
        num_hidden_layers=layers,
        attention_implementation=implementation,
        bidirectional=bidirectional,
        attention_query=query,
        num_attention_heads=heads,
    )
    model = MaskAttnModel(config)
    reference = ReferenceEncoder(model)
    ids = torch.randint(config.vocab_size, (5, 9))
    mask = ragged_mask(5, 9, mask_kind)

    outputs = model(ids, mask, output_attentions=True)
    actual = (outputs.last_hidden_state, outputs.pooler_output, outputs.attentions[0])
    expected = run_reference(reference, ids, mask)
    torch.testing.assert_close(actual, expected, atol=OUTPUT, rtol=0)

    directions = [torch.randn_like(tensor) for tensor in expected]
    sum((tensor * d).sum() for tensor, d in zip(actual, directions, strict=True)).backward()
    sum((tensor * d).sum() for tensor, d in zip(expected, directions, strict=True)).backward()
    gradients = reference.gradients([name for name, _ in model.named_parameters()])
    for name, parameter in model.named_parameters():
        assert_near(parameter.grad, gradients[name], GRADIENT, name)
