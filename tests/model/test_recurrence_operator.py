import importlib.util
import sys

import pytest
import torch

import hf_maskattn.model.recurrence_operator as operator_file
from hf_maskattn.model.recurrence import MaskedRecurrence
from tests.masks import ragged_mask
from tests.tolerances import OUTPUT


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


@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
def test_a_compiled_layer_is_one_operator(rnn_type):
    recurrence = MaskedRecurrence(input_size=3, hidden_size=8, num_layers=2, rnn_type=rnn_type)
    assert operator_calls(recurrence, torch.randn(3, 5, 3), ragged_mask(3, 5, "holes")) == 2


def test_compiling_for_training_in_one_graph_says_what_to_do():
    torch._dynamo.reset()
    compiled = torch.compile(MaskedRecurrence(input_size=3, hidden_size=8), fullgraph=True, backend="eager")
    with pytest.raises(Exception, match=r"compile under torch.no_grad\(\)"):
        compiled(torch.randn(3, 5, 3), ragged_mask(3, 5, "right"))


def test_export_leaves_batch_and_time_open():
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


def test_the_file_may_be_loaded_twice(monkeypatch):
    before = torch.ops.hf_maskattn.recurrence_v1
    name = "hf_maskattn.model.recurrence_operator_beside_weights"
    spec = importlib.util.spec_from_file_location(name, operator_file.__file__)
    again = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, again)
    spec.loader.exec_module(again)
    assert torch.ops.hf_maskattn.recurrence_v1 is before
    weights = [[w.detach() for w in torch.nn.LSTM(3, 4).parameters()]]
    x, mask = torch.randn(2, 5, 3), ragged_mask(2, 5, "holes")
    found, expected = (file.recurrence_operator("lstm", x, mask, weights) for file in (again, operator_file))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("mask", [ragged_mask(2, 5, "holes"), torch.ones(2, 5, dtype=torch.bool)], ids=["holes", "full"])
@pytest.mark.parametrize(("rnn_type", "module"), [("lstm", torch.nn.LSTM), ("gru", torch.nn.GRU)])
def test_the_operator_is_described_rightly(rnn_type, module, mask):
    weights = [w.detach() for rnn in (module(3, 4), module(3, 4)) for w in rnn.parameters()]
    arguments = (torch.randn(2, 5, 3), mask, weights, rnn_type, 0)
    torch.library.opcheck(torch.ops.hf_maskattn.recurrence_v1.default, arguments, test_utils=("test_schema", "test_faketensor"))
