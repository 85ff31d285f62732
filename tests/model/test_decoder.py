import copy

import pytest
import torch

from hf_maskattn.model import gate_steps, recurrent_kernel
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


def everything(output):
    return [*output.states, output.contexts, output.weights]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_target_may_be_read_in_any_parts(form):
    decoder, start, x = build(**form), source(), torch.randn(3, 7, 3)
    whole = decoder(x, None, source=start, keep_state=True)
    state, parts = None, []
    for part in x.split([1, 4, 2], dim=1):
        parts.append(decoder(part, None, state, start if state is None else None, keep_state=True))
        state = parts[-1].state
    assert state.get_seq_length() == whole.state.get_seq_length() == 7
    dims = [*(1 for _ in whole.states), 1, 2]
    for dim, expected, *found in zip(dims, everything(whole), *map(everything, parts), strict=True):
        torch.testing.assert_close(torch.cat(found, dim=dim), expected, atol=OUTPUT, rtol=0)
    for found, expected in zip(state.layers, whole.state.layers, strict=True):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=OUTPUT, rtol=0)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_rows_that_share_a_source_read_it_as_if_each_had_its_own(form, monkeypatch):
    decoder, x, mask = build(**form), torch.randn(6, 4, 3), ragged_mask(6, 3, "right")
    start = [tensor.repeat_interleave(2, dim=0) for tensor in source()]
    results = []
    with torch.no_grad():
        for rows_per_source in (2, 1):
            begun = decoder(x[:, :3], mask, source=start)
            first = decoder(x[:, :3], None, source=start, keep_state=True)
            after = decoder(x[:, 3:], None, first.state, keep_state=True)
            assert after.state.rows_per_source == rows_per_source
            results.append([*everything(begun), *everything(first), *everything(after)])
            monkeypatch.setattr("hf_maskattn.model.decoder.count_rows_per_source", lambda memory, mask: 1)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=OUTPUT, rtol=0)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_reading_leaves_the_given_state_as_it_is(form):
    decoder = build(**form)
    state = decoder(torch.randn(3, 2, 3), None, source=source(), keep_state=True).state
    before = copy.deepcopy([[t.detach() for t in layer] for layer in state.layers])
    again = [decoder(torch.ones(3, 2, 3), None, state, keep_state=True) for _ in range(2)]
    for one, other in zip(*map(everything, again), strict=True):
        assert torch.equal(one, other)
    assert all(torch.equal(a, b) for one, two in zip(state.layers, before, strict=True) for a, b in zip(one, two, strict=True))
    assert state.get_seq_length() == 2


@pytest.mark.parametrize("kind", MASK_KINDS)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_pad_leaves_the_state_untouched(form, kind):
    decoder, (memory, mask, summary), x = build(**form), source(), torch.randn(3, 6, 3)
    target_mask = ragged_mask(3, 6, kind)
    dirty = torch.where(target_mask[..., None], x, torch.nan)
    for keep_state in (False, True):
        output = decoder(dirty, target_mask, source=(memory, mask, summary), keep_state=keep_state)
        for row, real in enumerate(target_mask):
            pads = [layer[row, ~real] for layer in (*output.states, output.contexts)]
            assert not any(pad.any() for pad in [*pads, output.weights[row][:, ~real]])
            if real.any():
                one = slice(row, row + 1)
                alone = decoder(x[one, real], None, source=(memory[one], mask[one], summary[one]), keep_state=True)
                for found, expected in zip(output.states, alone.states, strict=True):
                    torch.testing.assert_close(found[row, real], expected[0], atol=OUTPUT, rtol=0)
                torch.testing.assert_close(output.weights[row][:, real], alone.weights[0], atol=OUTPUT, rtol=0)
                if keep_state:
                    for found, expected in zip(output.state.layers, alone.state.layers, strict=True):
                        for a, b in zip(found, expected, strict=True):
                            torch.testing.assert_close(a[row], b[0], atol=OUTPUT, rtol=0)
                    if form["input_feeding"]:
                        torch.testing.assert_close(output.state.context[row], alone.state.context[0], atol=OUTPUT, rtol=0)
    if kind == "empty":
        first = torch.tanh(decoder.first_state(summary[0]))
        torch.testing.assert_close(torch.cat([t[0] for layer in output.state.layers for t in layer]), first)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_source_without_a_token_has_no_context_and_starts_at_the_bias(form):
    decoder = build(**form)
    torch.nn.init.normal_(decoder.first_state.bias)
    for width in (5, 0):
        memory, mask = torch.full((2, width, 6), torch.nan), torch.zeros(2, width, dtype=torch.bool)
        output = decoder(torch.randn(2, 3, 3), None, source=(memory, mask, torch.zeros(2, 3)), keep_state=True)
        assert not output.contexts.any()
        assert not output.weights.any()
        assert output.weights.shape == (2, 1, 3, width)
        assert all(layer.isfinite().all() for layer in output.states)
    state = decoder._start(memory, mask, torch.zeros(2, 3))
    expected = torch.tanh(decoder.first_state.bias)
    torch.testing.assert_close(torch.cat([t[0] for layer in state.layers for t in layer]), expected)


def test_the_current_query_runs_a_whole_target_in_one_kernel(monkeypatch):
    calls = []
    kernel = recurrent_kernel.KERNELS["lstm"]
    monkeypatch.setitem(recurrent_kernel.KERNELS, "lstm", lambda x, *args: calls.append(x.shape) or kernel(x, *args))
    for query, expected in (("current", [(9, 3, 3), (9, 3, 4 + 6)]), ("previous", [(9, 3, 4 + 6)])):
        calls.clear()
        decoder = build(attention_query=query, rnn_type="lstm", num_layers=2, implementation="chunked")
        decoder(torch.randn(3, 9, 3), None, source=source())
        assert calls == expected


def test_the_cost_follows_real_tokens(monkeypatch):
    decoder, seen, step = build(implementation="chunked"), [], gate_steps.STEPS[1]
    monkeypatch.setitem(gate_steps.STEPS, 1, lambda gates, *args: seen.append(len(gates)) or step(gates, *args))
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1]]).bool()
    decoder(torch.randn(3, 4, 3), mask, source=source())
    assert seen == [3, 2, 1, 1]


def test_keys_are_projected_once_for_a_source():
    decoder, calls = build(), []
    decoder.attention.key_projection.register_forward_hook(lambda *_: calls.append(1))
    state = decoder(torch.randn(3, 4, 3), None, source=source(), keep_state=True).state
    for _ in range(3):
        state = decoder(torch.randn(3, 1, 3), None, state, keep_state=True).state
    assert calls == [1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_layers": 0}, "decoder_layers=0 must be at least 1"),
        ({"rnn_type": "rnn"}, "rnn_type='rnn' is unknown"),
        ({"attention_query": "next"}, r"attention_query='next' is unknown; choose from \['previous', 'current'\]"),
        ({"input_feeding": True}, "input_feeding=True needs attention_query='current'"),
    ],
)
def test_bad_choices_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        build(**changes)


def test_a_beginning_is_needed():
    with pytest.raises(ValueError, match="begins with a `source`, or goes on from a `state`: neither was given"):
        build()(torch.randn(1, 1, 3), None)
