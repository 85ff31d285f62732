import importlib.util
import sys

import pytest
import torch

from hf_maskattn.model import recurrent_kernel
from hf_maskattn.model.recurrence import MaskedRecurrence
from tests.masks import MASK_KINDS, ragged_mask
from tests.tolerances import GRADIENT, OUTPUT


@pytest.fixture
def calls(monkeypatch):
    """Shapes of the inputs of every call of a recurrent kernel."""
    shapes = []
    for name, kernel in dict(recurrent_kernel.KERNELS).items():

        def spy(x, *args, kernel=kernel):
            shapes.append(tuple(x.shape))
            return kernel(x, *args)

        monkeypatch.setitem(recurrent_kernel.KERNELS, name, spy)
    return shapes


def build(**changes):
    return MaskedRecurrence(**{"input_size": 3, "hidden_size": 8, **changes})


def test_num_time_chunks_sets_kernel_calls(calls):
    mask = torch.arange(12) < torch.tensor([[12], [5], [5], [2]])
    x = torch.randn(4, 12, 3)
    build(bidirectional=False)(x, mask, num_time_chunks=4)
    assert calls == [(2, 4, 3), (3, 3, 3), (7, 1, 3)]
    calls.clear()
    build()(x, mask, num_time_chunks=2)
    assert calls == [(5, 4, 3), (7, 1, 3)] * 2
    calls.clear()
    build(bidirectional=False)(x, mask)
    assert calls == [(12, 4, 3)], "a cut costs more than a few small positions"


def test_long_tail_is_cut_by_default(calls):
    mask = torch.arange(400) < torch.tensor([[400], *[[9]] * 15])
    build(bidirectional=False, hidden_size=64)(torch.randn(16, 400, 3), mask)
    assert calls == [(9, 16, 3), (391, 1, 3)]


def test_batch_without_padding_is_one_kernel_call(calls):
    build()(torch.randn(4, 12, 3), torch.ones(4, 12, dtype=torch.bool))
    assert calls == [(4, 12, 3)]


@pytest.mark.parametrize("has_grad", [True, False])
@pytest.mark.parametrize("num_time_chunks", [1, 2, 5, None])
@pytest.mark.parametrize("kind", MASK_KINDS)
@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
def test_num_time_chunks_does_not_change_results(rnn_type, kind, num_time_chunks, has_grad):
    recurrence = build(rnn_type=rnn_type, num_layers=2)
    mask = ragged_mask(6, 11, kind)
    results = []
    for number in (1, num_time_chunks):
        torch.manual_seed(1)
        x = torch.randn(6, 11, 3, requires_grad=True)
        recurrence.zero_grad()
        with torch.set_grad_enabled(has_grad):
            states = recurrence(x, mask, number)
        if has_grad:
            sum((layer * torch.randn_like(layer)).sum() for layer in states).backward()
        results.append([*states, *([x.grad, *(p.grad.clone() for p in recurrence.parameters())] if has_grad else [])])
    torch.testing.assert_close(*results, atol=GRADIENT, rtol=0)


@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
def test_batch_without_tokens_has_zero_gradients(rnn_type):
    recurrence = build(rnn_type=rnn_type)
    recurrence(torch.full((2, 3, 3), torch.nan), torch.zeros(2, 3, dtype=torch.bool))[-1].sum().backward()
    assert all(not parameter.grad.any() for parameter in recurrence.parameters())


def test_gradients_in_eval_mode():
    recurrence = build().eval()
    recurrence(torch.randn(2, 3, 3), torch.ones(2, 3, dtype=torch.bool))[-1].sum().backward()
    assert all(parameter.grad.any() for parameter in recurrence.parameters())


@pytest.mark.parametrize("mask", [[[1, 1, 1], [1, 0, 0]], [[1, 1, 1], [1, 1, 1]]])
def test_recurrence_rejects_bad_num_time_chunks(mask):
    with pytest.raises(ValueError, match=r"num_time_chunks must be at least 1, got 0\."):
        build()(torch.randn(2, 3, 3), torch.tensor(mask).bool(), num_time_chunks=0)


@pytest.mark.parametrize("mask", [[[1, 1, 1], [1, 0, 0]], [[1, 1, 1], [1, 1, 1]]], ids=["padded", "full"])
def test_autocast_dtype_does_not_depend_on_padding(monkeypatch, mask):
    monkeypatch.setattr(recurrent_kernel, "_cpu_has_kernel", lambda dtype: True)
    monkeypatch.setitem(recurrent_kernel.KERNELS, "lstm", lambda *args: tuple(t.bfloat16() for t in torch.lstm(*args)))
    with torch.autocast("cpu", enabled=False):
        weights = [[*torch.nn.LSTM(3, 4).parameters()]]
        layout = recurrent_kernel.choose_layout("lstm", torch.tensor(mask).bool(), 1, 4)
        assert recurrent_kernel.run_layer("lstm", torch.randn(2, 3, 3), weights, layout).dtype == torch.bfloat16


def operator_calls(recurrence, x, mask):
    """Compile for inference in one graph, run, and count the calls of the operator."""
    torch._dynamo.reset()
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    with torch.no_grad():
        states = torch.compile(recurrence, backend=backend, fullgraph=True, dynamic=True)(x, mask)
        torch.testing.assert_close(states[-1], recurrence(x, mask)[-1], atol=OUTPUT, rtol=0)
    (graph,) = graphs
    return [node.target for node in graph.graph.nodes].count(torch.ops.hf_maskattn.recurrence_v1)


@pytest.mark.slow
@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
def test_compiled_layer_is_one_operator(rnn_type):
    recurrence = MaskedRecurrence(input_size=3, hidden_size=8, num_layers=2, rnn_type=rnn_type)
    assert operator_calls(recurrence, torch.randn(3, 5, 3), ragged_mask(3, 5, "holes")) == 2


@pytest.mark.slow
def test_fullgraph_training_raises_with_way_out():
    torch._dynamo.reset()
    compiled = torch.compile(MaskedRecurrence(input_size=3, hidden_size=8), fullgraph=True, backend="eager")
    with pytest.raises(Exception, match=r"compile under torch.no_grad\(\)"):
        compiled(torch.randn(3, 5, 3), ragged_mask(3, 5, "right"))


@pytest.mark.skipif(torch.__version__ < "2.13", reason="torch does not tell an export from a compilation")
def test_strict_export_with_gradients_enabled():
    recurrence, x, mask = MaskedRecurrence(input_size=3, hidden_size=8).eval(), torch.randn(3, 5, 3), ragged_mask(3, 5, "right")
    program = torch.export.export(recurrence, (x, mask), strict=True)
    torch.testing.assert_close(program.module()(x, mask)[-1], recurrence(x, mask)[-1], atol=OUTPUT, rtol=0)


def test_export_has_dynamic_batch_and_time():
    recurrence = MaskedRecurrence(input_size=3, hidden_size=8).eval()
    batch, time = torch.export.Dim("batch"), torch.export.Dim("time")
    program = torch.export.export(
        recurrence,
        (torch.randn(3, 5, 3), ragged_mask(3, 5, "right")),
        dynamic_shapes={"x": {0: batch, 1: time}, "mask": {0: batch, 1: time}},
    )
    for shape in ((1, 1), (4, 9)):
        x, mask = torch.randn(*shape, 3), ragged_mask(*shape, "left")
        torch.testing.assert_close(program.module()(x, mask)[-1], recurrence(x, mask)[-1], atol=OUTPUT, rtol=0)


def test_operator_file_loads_twice(monkeypatch):
    operator = torch.ops.hf_maskattn.recurrence_v1
    name = "hf_maskattn.model.copy_of_recurrent_kernel"
    spec = importlib.util.spec_from_file_location(name, recurrent_kernel.__file__)
    copy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, copy)
    spec.loader.exec_module(copy)
    assert torch.ops.hf_maskattn.recurrence_v1 is operator
    weights = [[w.detach() for w in torch.nn.LSTM(3, 4).parameters()]]
    x, mask = torch.randn(2, 5, 3), ragged_mask(2, 5, "holes")
    actual, expected = (file.recurrence_operator("lstm", x, mask, weights) for file in (copy, recurrent_kernel))
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("mask", [ragged_mask(2, 5, "holes"), torch.ones(2, 5, dtype=torch.bool)], ids=["holes", "full"])
@pytest.mark.parametrize(("rnn_type", "module"), [("lstm", torch.nn.LSTM), ("gru", torch.nn.GRU)])
def test_operator_opcheck(rnn_type, module, mask):
    weights = [w.detach() for rnn in (module(3, 4), module(3, 4)) for w in rnn.parameters()]
    arguments = (torch.randn(2, 5, 3), mask, weights, rnn_type, 0)
    torch.library.opcheck(torch.ops.hf_maskattn.recurrence_v1.default, arguments, test_utils=("test_schema", "test_faketensor"))
