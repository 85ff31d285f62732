import pytest
import torch

from hf_maskattn.model.attention import AdditiveAttention, AttentionPooling
from tests.masks import MASK_KINDS, ragged_mask
from tests.tolerances import GRADIENT, OUTPUT


def build(implementation="eager", **changes):
    sizes = {"query_size": 4, "memory_size": 6, "attention_size": 8, "num_heads": 2, **changes}
    attention = AdditiveAttention(implementation=implementation, **sizes)
    torch.nn.init.normal_(attention.energy)
    return attention


@pytest.mark.parametrize("has_query", [True, False])
def test_additive_attention_by_hand(has_query):
    attention = build(query_size=1 if has_query else None, memory_size=1, attention_size=1, num_heads=1)
    with torch.no_grad():
        attention.key_projection.weight.fill_(2.0)
        attention.energy.fill_(3.0)
        (attention.query_projection.weight if has_query else attention.bias).fill_(1.0 if has_query else 0.25)
    memory, query = torch.tensor([[[0.5], [-1.0], [100.0]]]), torch.tensor([[[0.25]]]) if has_query else None
    context, weights = attention(query, memory, torch.tensor([[True, True, False]]))
    # scores 3 tanh(0.25 + 1) = 2.544851, 3 tanh(0.25 - 2) = -2.824127; their softmax and the mean of 0.5 and -1 under it
    torch.testing.assert_close(weights[0, 0, 0], torch.tensor([0.9953627, 0.0046373, 0.0]), atol=OUTPUT, rtol=0)
    torch.testing.assert_close(context[0, 0, 0], torch.tensor(0.4930441), atol=OUTPUT, rtol=0)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("bias", ["attention.bias"]),
        ("learned", ["query", "attention.query_projection.weight"]),
        *((query, ["attention.query_projection.weight"]) for query in ("last", "mean")),
    ],
)
def test_forms_of_query_have_their_weights(query, names):
    pooling = AttentionPooling(query=query, memory_size=6, attention_size=4)
    assert {*pooling.state_dict()} == {*names, "attention.energy", "attention.key_projection.weight"}


@pytest.mark.parametrize("kind", MASK_KINDS)
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("implementation", ["ragged", "chunked"])
def test_implementations_agree_with_eager(kind, heads, implementation):
    eager, other = build(num_heads=heads), build(implementation, num_heads=heads)
    other.load_state_dict(eager.state_dict())
    mask = ragged_mask(3, 7, kind)
    direction = torch.randn(3, 5, 6)
    results = []
    for attention in (eager, other):
        torch.manual_seed(5)
        query, memory = torch.randn(3, 5, 4, requires_grad=True), torch.randn(3, 7, 6, requires_grad=True)
        context, weights = attention(query, memory, mask)
        ((context * direction).sum() + (weights**2).sum()).backward()
        results.append([context, weights, query.grad, memory.grad, *(p.grad for p in attention.parameters())])
    torch.testing.assert_close(*results, atol=GRADIENT, rtol=0)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
def test_attention_over_shared_memory(implementation, heads):
    attention, mask = build(implementation, num_heads=heads), ragged_mask(3, 7, "holes")
    memory, query = torch.randn(3, 7, 6), torch.randn(6, 5, 4)
    actual = attention(query, attention.prepare(memory, mask), mask)
    expected = attention(query, memory.repeat_interleave(2, dim=0), mask.repeat_interleave(2, dim=0))
    torch.testing.assert_close(actual, expected, atol=OUTPUT, rtol=0)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
def test_gradients_have_strides_of_parameters(implementation, heads):
    # DistributedDataParallel copies other gradients at every step, and warns.
    attention = build(implementation, num_heads=heads)
    strides = {}
    for name, parameter in attention.named_parameters():
        parameter.register_hook(lambda gradient, name=name: strides.update({name: gradient.stride()}))
    attention(torch.randn(3, 1, 4), torch.randn(3, 7, 6), ragged_mask(3, 7, "right"))[0].sum().backward()
    assert strides == {name: parameter.stride() for name, parameter in attention.named_parameters()}


@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
def test_dropout_drops_tokens_in_training_only(implementation):
    attention = build(implementation, dropout=0.5, num_heads=1)
    query, memory = torch.randn(1, 1, 4), torch.randn(1, 200, 6)
    mask = torch.ones(1, 200, dtype=torch.bool)
    _, weights = attention.train()(query, memory, mask)
    assert 0.3 < (weights == 0).float().mean() < 0.7
    assert (attention.eval()(query, memory, mask)[1] > 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_size": 9}, "attention_size must be divisible by num_attention_heads=2, got 9."),
        ({"memory_size": 7}, "hidden_size must be divisible by num_attention_heads=2, got 7."),
        ({"num_heads": 0}, "num_attention_heads must be at least 1, got 0."),
        ({"dropout": 5.0}, r"attention_dropout_prob must be in \[0, 1\], got 5.0."),
        (
            {"implementation": "flash"},
            r"attention_implementation must be one of \['eager', 'ragged', 'chunked'\], got 'flash'.",
        ),
    ],
)
def test_attention_rejects_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_pooling_rejects_unknown_query():
    with pytest.raises(ValueError, match=r"attention_query must be one of \['bias', 'learned', 'last', 'mean'\], got 'first'."):
        AttentionPooling(query="first", memory_size=4, attention_size=4)


def test_pooling_by_last_state_requires_it():
    pooling = AttentionPooling(query="last", memory_size=4, attention_size=4)
    with pytest.raises(ValueError, match="needs `last_state`"):
        pooling(torch.randn(1, 2, 4), torch.ones(1, 2, dtype=torch.bool))
