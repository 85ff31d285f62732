"""Law: compiled in one graph for any batch and length, a model gives what it gives uncompiled, under any mask."""

import pytest
import torch

from tests.heads import HEADS, build_head
from tests.masks import MASK_KINDS, ragged_mask
from tests.tolerances import OUTPUT, assert_near


@pytest.mark.filterwarnings("ignore")  # torch's compiler provokes warnings of its own
@pytest.mark.parametrize(
    ("head", "implementation", "rnn_type", "query"),
    [*((head, "eager", "lstm", "last") for head in HEADS), ("MaskAttnModel", "chunked", "gru", "mean")],
)
def test_inference(tiny_config, head, implementation, rnn_type, query):
    torch._dynamo.reset()
    model = build_head(
        head,
        tiny_config,
        attention_implementation=implementation,
        rnn_type=rnn_type,
        attention_query=query,
        num_hidden_layers=2,
        num_attention_heads=2,
    ).eval()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.no_grad():
        for index, kind in enumerate(MASK_KINDS):
            mask = ragged_mask(2 + index, 9 - index, kind)
            inputs = {"input_ids": torch.randint(40, mask.shape), "attention_mask": mask.long(), "output_attentions": True}
            found, expected = compiled(**inputs), model(**inputs)
            torch.testing.assert_close(found.attentions[0], expected.attentions[0], atol=OUTPUT, rtol=0)
            one, other = (
                value[0] if value[0].dim() == 2 else torch.where(mask[..., None], value[0], 0) for value in (found, expected)
            )
            assert_near(one, other, OUTPUT)


@pytest.mark.filterwarnings("ignore")
def test_the_default_compiler_under_masks_with_and_without_pads(tiny_config):
    torch._dynamo.reset()
    model = build_head("MaskAttnForTokenClassification", tiny_config).eval()
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for mask in (ragged_mask(3, 5, "holes"), torch.ones(4, 6, dtype=torch.bool), ragged_mask(2, 7, "left")):
            inputs = {"input_ids": torch.randint(40, mask.shape), "attention_mask": mask.long()}
            assert_near(compiled(**inputs).logits[mask], model(**inputs).logits[mask], OUTPUT)
