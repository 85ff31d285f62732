"""Gradients reach all hidden states and attention weights that a model returns.

Transformers has a common test of this, `test_retain_grad_hidden_states_attentions`: outputs depend on the returned tensors
themselves, which are no copies.
"""

from itertools import product

import pytest
import torch

from hf_maskattn import MaskAttnConfig, RNNSearchForConditionalGeneration, RNNSearchModel
from tests.heads import HEADS, build_head
from tests.masks import ragged_mask
from tests.other_versions import enable_checkpointing
from tests.tolerances import GRADIENT

MASKS = {
    "none": None,
    "holes": ragged_mask(3, 5, "holes", torch.Generator().manual_seed(0)),
    "empty columns": torch.tensor([[0, 1, 1, 1, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]]).bool(),
}
DEFAULT = "eager", "learned"
"""Implementation and query."""

REQUESTS = {"output_hidden_states": True, "output_attentions": True}


def retain(*tensors):
    """Retain the gradients of tensors, of which there must be at least one."""
    assert tensors
    for tensor in tensors:
        tensor.retain_grad()
    return tensors


def assert_has_gradients(tensors, loss, mask=None, dim=1):
    """Assert that a loss has a gradient in each tensor, with a mask exactly 0 at padding."""
    loss.backward(retain_graph=True)
    for index, tensor in enumerate(tensors):
        assert tensor.grad is not None, index
        assert tensor.grad.any(), index
        if mask is not None and tensor.dim() == 3:
            assert not tensor.grad[~mask].any(), index


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    ("head", "implementation", "query"),
    [
        # Every setting is tested with one head by default, and every head with one setting.
        pytest.param(head, *setting, marks=[] if head == "MaskAttnModel" or setting == DEFAULT else [pytest.mark.slow])
        for head, setting in product(HEADS, product(["eager", "ragged", "chunked"], ["learned", "last", "mean"]))
    ],
)
@pytest.mark.parametrize("checkpointing", [None, {"use_reentrant": False}])
def test_encoder_outputs_are_on_gradient_path(tiny_config, head, implementation, query, mask, checkpointing):
    sizes = {"attention_implementation": implementation, "attention_query": query}
    model = build_head(head, tiny_config, num_hidden_layers=2, num_attention_heads=2, hidden_dropout_prob=0.1, **sizes)
    if checkpointing:
        enable_checkpointing(model, checkpointing)
    mask = MASKS[mask]
    ids = torch.randint(40, (3, 5) if mask is None else mask.shape)
    outputs = model(ids, mask, **REQUESTS)
    tensors = retain(*outputs.hidden_states, *outputs.attentions)
    token_mask = torch.ones(ids.shape, dtype=torch.bool) if mask is None else mask
    if head == "MaskAttnModel":
        assert outputs.hidden_states[-1] is outputs.last_hidden_state
        assert_has_gradients(tensors, outputs.pooler_output.square().sum(), token_mask)
    else:
        logits = outputs.logits if outputs.logits.dim() == 2 else outputs.logits[token_mask]
        assert_has_gradients(tensors, logits.square().sum(), token_mask)


def test_retain_grad_hidden_states_attentions(tiny_config, tiny_rnnsearch_config):
    for head in HEADS:
        outputs = build_head(head, tiny_config, **REQUESTS)(torch.randint(40, (3, 5)))
        tensors = outputs.hidden_states if head == "MaskAttnModel" else (*outputs.hidden_states, *outputs.attentions)
        assert_has_gradients(retain(*tensors), outputs[0].flatten()[0])
    for kind in (RNNSearchModel, RNNSearchForConditionalGeneration):
        model = kind(tiny_rnnsearch_config(**REQUESTS))
        outputs = model(torch.randint(40, (3, 5)), decoder_input_ids=torch.randint(40, (3, 4)))
        states = (*outputs.encoder_hidden_states, *outputs.decoder_hidden_states, *outputs.cross_attentions)
        assert_has_gradients(retain(*states), outputs[0].flatten()[0])


@pytest.mark.parametrize("use_cache", [False, True])
@pytest.mark.parametrize("source", ["none", "empty columns"])
@pytest.mark.parametrize("target", MASKS)
@pytest.mark.parametrize(
    ("query", "feeding"), [("previous", False), pytest.param("current", False, marks=pytest.mark.slow), ("current", True)]
)
@pytest.mark.parametrize(
    ("implementation", "rnn_type"),
    [("eager", "gru"), ("ragged", "lstm"), pytest.param("chunked", "gru", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("kind", [RNNSearchModel, RNNSearchForConditionalGeneration])
def test_encoder_decoder_outputs_are_on_gradient_path(
    tiny_rnnsearch_config, kind, implementation, rnn_type, query, feeding, target, source, use_cache
):
    config = tiny_rnnsearch_config(
        attention_implementation=implementation,
        rnn_type=rnn_type,
        attention_query=query,
        input_feeding=feeding,
        encoder_layers=2,
        decoder_layers=2,
        num_attention_heads=2,
        hidden_dropout_prob=0.1,
    )
    mask, target_mask = MASKS[source], MASKS[target]
    ids = torch.randint(40, (3, 5) if mask is None else mask.shape)
    target_ids = torch.randint(40, (3, 4) if target_mask is None else target_mask.shape)
    inputs = {"decoder_input_ids": target_ids, "decoder_attention_mask": target_mask, "use_cache": use_cache}
    outputs = kind(config).train()(ids, mask, **inputs, **REQUESTS)
    encoder = retain(*outputs.encoder_hidden_states)
    decoder = retain(*outputs.decoder_hidden_states, *outputs.cross_attentions)
    assert len(encoder) == 3
    assert len(decoder) == 4
    token_mask = torch.ones(target_ids.shape, dtype=torch.bool) if target_mask is None else target_mask
    loss = outputs[0][token_mask].square().sum()
    assert_has_gradients(encoder, loss, mask)
    assert_has_gradients(decoder, loss, token_mask)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
def test_encoder_decoder_with_gradient_checkpointing(tiny_rnnsearch_config, implementation, use_reentrant):
    model = RNNSearchForConditionalGeneration(
        tiny_rnnsearch_config(attention_implementation=implementation, decoder_layers=2, encoder_layers=2)
    )
    enable_checkpointing(model.train(), {"use_reentrant": use_reentrant})
    outputs = model(torch.randint(40, (3, 5)), labels=torch.randint(3, 40, (3, 4)), **REQUESTS)
    states = (*outputs.encoder_hidden_states, *outputs.decoder_hidden_states, *outputs.cross_attentions)
    assert_has_gradients(retain(*states), outputs.loss)


@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
def test_gradient_of_weights_comes_from_context(tiny_config, implementation):
    """The gradient of the weights comes from the context: grad_weights[b, k, t] = grad_context[b, k] . memory[b, t, k]."""
    model = build_head("MaskAttnModel", tiny_config, attention_implementation=implementation, num_attention_heads=2).eval()
    mask = MASKS["empty columns"]
    outputs = model(torch.randint(40, mask.shape), mask, **REQUESTS)
    (weights,) = retain(*outputs.attentions)
    (context,) = retain(outputs.pooler_output)
    outputs.pooler_output.square().sum().backward()
    memory = outputs.last_hidden_state.detach().unflatten(-1, (2, 4))  # [B, T, heads, H / heads]
    expected = torch.einsum("bkh,btkh->bkt", context.grad.unflatten(-1, (2, 4)), memory)
    torch.testing.assert_close(weights.grad[:, :, 0], expected, atol=GRADIENT, rtol=0)


@pytest.mark.parametrize("query", ["previous", "current"])
@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
def test_hooks_on_outputs_change_gradients_of_weights(tiny_rnnsearch_config, implementation, query):
    """With hooks that set the gradients of states and weights to 0, no gradient reaches the layers below."""
    config = tiny_rnnsearch_config(attention_implementation=implementation, attention_query=query, share_embeddings=False)
    model, mask = RNNSearchModel(config), MASKS["empty columns"][:2]
    ids, target = torch.randint(40, mask.shape), torch.randint(3, 40, mask.shape)
    outputs = model(ids, mask, decoder_input_ids=target, decoder_attention_mask=mask, use_cache=False, **REQUESTS)
    for tensor in (*outputs.decoder_hidden_states, *outputs.cross_attentions):
        tensor.register_hook(torch.zeros_like)
    outputs.last_hidden_state.sum().backward()
    assert not model.target_embeddings.weight.grad.any()
    assert not model.decoder.attention.energy.grad.any()


@pytest.mark.parametrize("requests", [{"output_hidden_states": True}, {"output_attentions": True}, REQUESTS])
@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
def test_requested_outputs_change_only_rounding(tiny_config, tiny_rnnsearch_config, implementation, requests):
    mask = MASKS["empty columns"]
    ids = torch.randint(40, mask.shape)
    for head in HEADS:
        model = build_head(head, tiny_config, attention_implementation=implementation, num_hidden_layers=2)
        actual, expected = model(ids, mask, **requests)[0], model(ids, mask)[0]
        if expected.dim() == 3 and head != "MaskAttnModel":  # logits at padding are not specified
            actual, expected = actual[mask], expected[mask]
        torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)
    for cached in (False, True):
        config = tiny_rnnsearch_config(attention_implementation=implementation, decoder_layers=2)
        model, target = RNNSearchModel(config), {"decoder_input_ids": ids, "decoder_attention_mask": mask, "use_cache": cached}
        actual, expected = model(ids, mask, **target, **requests)[0], model(ids, mask, **target)[0]
        torch.testing.assert_close(actual[mask], expected[mask], atol=1e-6, rtol=0)


def test_empty_batches_and_sources(tiny_config, tiny_rnnsearch_config):
    """Batches without columns, rows or tokens."""
    model = build_head("MaskAttnForTokenClassification", tiny_config)
    for shape in ((2, 0), (0, 3), (0, 0)):
        outputs = model(torch.zeros(shape, dtype=torch.long), **REQUESTS)
        outputs.logits.sum().backward()
        assert [layer.shape[:2] for layer in outputs.hidden_states] == [shape, shape]
    model = RNNSearchForConditionalGeneration(tiny_rnnsearch_config())
    outputs = model(torch.zeros(2, 0, dtype=torch.long), labels=torch.ones(2, 3, dtype=torch.long), **REQUESTS)
    outputs.loss.backward()
    assert outputs.cross_attentions[0].shape == (2, 1, 3, 0)


def test_config_requests_hidden_states():
    config = MaskAttnConfig(vocab_size=9, embedding_size=4, hidden_size=4, attention_size=4, output_hidden_states=True)
    model = build_head("MaskAttnForTokenClassification", lambda **changes: config)
    mask = torch.tensor([[0, 1, 1, 0]])
    outputs = model(torch.randint(9, mask.shape), mask)
    assert outputs.attentions is None
    assert_has_gradients(retain(*outputs.hidden_states), outputs.logits[mask.bool()].sum())
