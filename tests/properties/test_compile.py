"""Compiled in one graph for any batch size and length, a model has the outputs of eager mode, for any mask."""

import pytest
import torch

from tests.heads import HEADS, build_head
from tests.masks import MASK_KINDS, ragged_mask
from tests.tolerances import OUTPUT, assert_near

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore")  # warnings of torch's compiler
@pytest.mark.parametrize(
    ("head", "implementation", "rnn_type", "query"),
    [*((head, "eager", "lstm", "last") for head in HEADS), ("MaskAttnModel", "chunked", "gru", "mean")],
)
def test_compiled_model_matches_eager_mode(tiny_config, head, implementation, rnn_type, query):
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
            actual, expected = compiled(**inputs), model(**inputs)
            torch.testing.assert_close(actual.attentions[0], expected.attentions[0], atol=OUTPUT, rtol=0)
            actual_output, expected_output = (
                value[0] if value[0].dim() == 2 else torch.where(mask[..., None], value[0], 0) for value in (actual, expected)
            )
            assert_near(actual_output, expected_output, OUTPUT)


@pytest.mark.filterwarnings("ignore")
def test_inductor_with_and_without_padding(tiny_config):
    torch._dynamo.reset()
    model = build_head("MaskAttnForTokenClassification", tiny_config).eval()
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for mask in (ragged_mask(3, 5, "holes"), torch.ones(4, 6, dtype=torch.bool), ragged_mask(2, 7, "left")):
            inputs = {"input_ids": torch.randint(40, mask.shape), "attention_mask": mask.long()}
            assert_near(compiled(**inputs).logits[mask], model(**inputs).logits[mask], OUTPUT)
