import copy

import pytest
import torch

from hf_maskattn.model import recurrent_autograd, recurrent_kernel
from hf_maskattn.model.decoder import AttentiveDecoder
from tests.masks import MASK_KINDS, ragged_mask
from tests.tolerances import OUTPUT

SIZES = {"input_size": 3, "hidden_size": 4, "memory_size": 6, "attention_size": 4}
FORMS = [
    {"attention_query": query, "rnn_type": rnn_type, "num_layers": layers, "input_feeding": feeding, "implementation": form}
    for rnn_type, layers in (("gru", 1), ("lstm", 2))
    for query, feeding in (("previous", False), ("current", False), ("current", True))
    for form in ("chunked", "ragged")
]
SOURCE_MASK = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0]]).bool()


def build(**changes):
    torch.manual_seed(0)
    decoder = AttentiveDecoder(**{**SIZES, **changes})
    torch.nn.init.normal_(decoder.attention.energy)
    return decoder


def source(rows=3):
    memory = torch.randn(rows, 5, 6)
    return memory, SOURCE_MASK[:rows], torch.randn(rows, 3)


def all_tensors(output):
    return [*output.states, output.contexts, output.weights]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_decoder_in_parts_matches_whole_target(form):
    decoder, encoded, x = build(**form), source(), torch.randn(3, 7, 3)
    complete = decoder(x, None, source=encoded, use_cache=True)
    state, parts = None, []
    for part in x.split([1, 4, 2], dim=1):
        parts.append(decoder(part, None, state, encoded if state is None else None, use_cache=True))
        state = parts[-1].state
    assert state.get_seq_length() == complete.state.get_seq_length() == 7
    dims = [*(1 for _ in complete.states), 1, 2]
    for dim, expected, *actual in zip(dims, all_tensors(complete), *map(all_tensors, parts), strict=True):
        torch.testing.assert_close(torch.cat(actual, dim=dim), expected, atol=OUTPUT, rtol=0)
    torch.testing.assert_close(state.layers, complete.state.layers, atol=OUTPUT, rtol=0)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_rows_with_shared_source_match_repeated_source(form, monkeypatch):
    decoder, x, mask = build(**form), torch.randn(6, 4, 3), ragged_mask(6, 3, "right")
    encoded = [tensor.repeat_interleave(2, dim=0) for tensor in source()]
    results = []
    with torch.no_grad():
        for rows_per_source in (2, 1):
            padded = decoder(x[:, :3], mask, source=encoded)
            start = decoder(x[:, :3], None, source=encoded, use_cache=True)
            rest = decoder(x[:, 3:], None, start.state, use_cache=True)
            assert rest.state.rows_per_source == rows_per_source
            results.append([*all_tensors(padded), *all_tensors(start), *all_tensors(rest)])
            monkeypatch.setattr("hf_maskattn.model.decoder.count_rows_per_source", lambda memory, mask: 1)
    torch.testing.assert_close(*results, atol=OUTPUT, rtol=0)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_decoder_does_not_change_given_state(form):
    decoder = build(**form)
    state = decoder(torch.randn(3, 2, 3), None, source=source(), use_cache=True).state
    copied = copy.deepcopy([[t.detach() for t in layer] for layer in state.layers])
    outputs = [decoder(torch.ones(3, 2, 3), None, state, use_cache=True) for _ in range(2)]
    torch.testing.assert_close(*map(all_tensors, outputs), atol=0, rtol=0)
    torch.testing.assert_close([*state.layers], copied, atol=0, rtol=0)
    assert state.get_seq_length() == 2


@pytest.mark.parametrize("kind", MASK_KINDS)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_padding_leaves_state_unchanged(form, kind):
    decoder, (memory, mask, summary), x = build(**form), source(), torch.randn(3, 6, 3)
    target_mask = ragged_mask(3, 6, kind)
    dirty = torch.where(target_mask[..., None], x, torch.nan)
    for use_cache in (False, True):
        output = decoder(dirty, target_mask, source=(memory, mask, summary), use_cache=use_cache)
        for row, is_token in enumerate(target_mask):
            padding = [layer[row, ~is_token] for layer in (*output.states, output.contexts)]
            assert not any(tensor.any() for tensor in [*padding, output.weights[row][:, ~is_token]])
            if is_token.any():
                one = slice(row, row + 1)
                single = decoder(x[one, is_token], None, source=(memory[one], mask[one], summary[one]), use_cache=True)
                states = [layer[row, is_token] for layer in output.states]
                torch.testing.assert_close(states, [layer[0] for layer in single.states], atol=OUTPUT, rtol=0)
                torch.testing.assert_close(output.weights[row][:, is_token], single.weights[0], atol=OUTPUT, rtol=0)
                if use_cache:
                    final = [[state[one] for state in layer] for layer in output.state.layers]
                    torch.testing.assert_close(final, single.state.layers, atol=OUTPUT, rtol=0)
                    if form["input_feeding"]:
                        torch.testing.assert_close(output.state.context[row], single.state.context[0], atol=OUTPUT, rtol=0)
    if kind == "empty":
        initial_state = torch.tanh(decoder.first_state(summary[0]))
        torch.testing.assert_close(torch.cat([t[0] for layer in output.state.layers for t in layer]), initial_state)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_empty_source_has_zero_context_and_bias_state(form):
    decoder = build(**form)
    torch.nn.init.normal_(decoder.first_state.bias)
    for width in (5, 0):
        memory, mask = torch.full((2, width, 6), torch.nan), torch.zeros(2, width, dtype=torch.bool)
        output = decoder(torch.randn(2, 3, 3), None, source=(memory, mask, torch.zeros(2, 3)), use_cache=True)
        assert not output.contexts.any()
        assert not output.weights.any()
        assert output.weights.shape == (2, 1, 3, width)
        assert all(layer.isfinite().all() for layer in output.states)
    state = decoder._start(memory, mask, torch.zeros(2, 3))
    expected = torch.tanh(decoder.first_state.bias)
    torch.testing.assert_close(torch.cat([t[0] for layer in state.layers for t in layer]), expected)


def test_current_query_runs_one_kernel_per_layer(monkeypatch):
    calls = []
    kernel = recurrent_kernel.KERNELS["lstm"]
    monkeypatch.setitem(recurrent_kernel.KERNELS, "lstm", lambda x, *args: calls.append(x.shape) or kernel(x, *args))
    for query, expected in (("current", [(9, 3, 3), (9, 3, 4 + 6)]), ("previous", [(9, 3, 4 + 6)])):
        calls.clear()
        decoder = build(attention_query=query, rnn_type="lstm", num_layers=2, implementation="chunked")
        decoder(torch.randn(3, 9, 3), None, source=source())
        assert calls == expected


def test_fused_layer_skips_padding(monkeypatch):
    decoder, batch_sizes, step = build(implementation="chunked"), [], recurrent_autograd.STEP_FUNCTIONS[1]
    monkeypatch.setitem(
        recurrent_autograd.STEP_FUNCTIONS, 1, lambda gates, *args: batch_sizes.append(len(gates)) or step(gates, *args)
    )
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1]]).bool()
    decoder(torch.randn(3, 4, 3), mask, source=source())
    assert batch_sizes == [3, 2, 1, 1]


def test_keys_are_projected_once():
    decoder, calls = build(), []
    decoder.attention.key_projection.register_forward_hook(lambda *_: calls.append(1))
    state = decoder(torch.randn(3, 4, 3), None, source=source(), use_cache=True).state
    for _ in range(3):
        state = decoder(torch.randn(3, 1, 3), None, state, use_cache=True).state
    assert calls == [1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 0}, "decoder_layers must be at least 1, got 0."),
        ({"rnn_type": "rnn"}, r"rnn_type must be one of \['lstm', 'gru'\], got 'rnn'."),
        ({"attention_query": "next"}, r"attention_query must be one of \['previous', 'current'\], got 'next'."),
        ({"input_feeding": True}, "attention_query must be 'current' with input_feeding=True, got 'previous'"),
    ],
)
def test_decoder_rejects_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_decoder_requires_source_or_state():
    with pytest.raises(ValueError, match="One of `state` and `source` must be given, got neither"):
        build()(torch.randn(1, 1, 3), None)
