import os
import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch

from hf_maskattn.inspection.contributions import split_logits
from hf_maskattn.onnx.check import check_onnx
from hf_maskattn.onnx.export import write_onnx
from hf_maskattn.onnx.runtime import OnnxSession
from tests.heads import build_head
from tests.masks import MASK_KINDS, ragged_mask
from tests.onnx_cases import CASES, export_case
from tests.tolerances import MANY_STEPS, OUTPUT

DEFAULT_CASES = [pytest.param(name, marks=[] if name == "lstm" else [pytest.mark.slow]) for name in CASES]


def run_model(model, ids, mask):
    with torch.no_grad():
        outputs = model(input_ids=ids, attention_mask=mask, output_attentions=True)
    values = [outputs.logits, outputs.attentions[0], *([outputs["sequence_logits"]] if "sequence_logits" in outputs else [])]
    return [value.numpy() for value in values]


@pytest.mark.parametrize("case", DEFAULT_CASES)
def test_onnx_file_equals_model_at_any_shape_and_mask(exported, case):
    model, path = exported(case)
    session = OnnxSession(path)
    for kind in MASK_KINDS:
        for shape in ((1, 1), (1, 9), (5, 2), (4, 40)):
            ids, mask = torch.randint(12, shape), ragged_mask(*shape, kind)
            for expected, found in zip(run_model(model, ids, mask), session.run(ids.numpy(), mask.long().numpy()), strict=True):
                assert found.shape == expected.shape
                if found.ndim == 3:  # logits of a token head at padding positions have no meaning
                    found, expected = found[mask.numpy()], expected[mask.numpy()]
                scale = np.abs(expected[np.isfinite(expected)]).max(
                    initial=1
                )  # max-marginals are sums over the tokens of a row
                np.testing.assert_allclose(found, expected, atol=MANY_STEPS * scale, rtol=0, err_msg=f"{kind} {shape}")


@pytest.mark.parametrize("case", DEFAULT_CASES)
def test_onnx_file_ignores_padding(exported, case):
    _, path = exported(case)
    session, mask = OnnxSession(path), ragged_mask(4, 11, "empty")
    ids = torch.randint(12, mask.shape)
    logits, attentions, *further = session.run(ids.numpy(), mask.long().numpy())
    assert not attentions[np.broadcast_to(~mask.numpy()[:, None, None], attentions.shape)].any()
    np.testing.assert_allclose(attentions.sum(axis=-1)[1:], 1, atol=OUTPUT)
    assert not np.isnan(logits).any()
    junk = torch.where(mask, ids, torch.randint(-(2**60), 2**60, mask.shape))
    for one, other in zip(session.run(junk.numpy(), mask.long().numpy()), (logits, attentions, *further), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.slow
def test_onnx_file_of_a_crf_selects_the_best_sequence(exported):
    model, path = exported("crf")
    session, ids = OnnxSession(path), torch.randint(12, (20, 13))
    for kind in MASK_KINDS:
        mask = ragged_mask(*ids.shape, kind)
        expected, _ = run_model(model, ids, mask)
        found, _ = session.run(ids.numpy(), mask.long().numpy())
        assert np.array_equal(found.argmax(-1)[mask.numpy()], expected.argmax(-1)[mask.numpy()])
        assert np.isneginf(expected).any()  # an entity does not begin with I-X


@pytest.mark.parametrize("case", DEFAULT_CASES)
def test_each_layer_is_one_native_node_with_lengths(exported, case):
    model, path = exported(case)
    graph = onnx.load(path).graph
    constants = {value.name for value in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("LSTM", "GRU")]
    assert [node.op_type for node in layers] == [model.config.rnn_type.upper()] * model.config.num_hidden_layers
    for node in layers:
        _, *weights, lengths = node.input
        assert lengths
        assert lengths not in constants
        assert constants.issuperset(weights)
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        assert attributes["direction"] == (b"bidirectional" if model.config.bidirectional else b"forward")
    computed_from_constants = [node.op_type for node in graph.node if constants.issuperset(node.input)]
    assert computed_from_constants == []


def test_onnx_file_has_dynamic_sizes_and_no_metadata(exported):
    model, path = exported("lstm")
    proto = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(proto, full_check=True)
    assert list(path.parent.iterdir()) == [path]
    sizes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.input, *proto.graph.output)
    }
    assert sizes == {
        "input_ids": ["batch", "time"],
        "attention_mask": ["batch", "time"],
        "logits": ["batch", model.config.num_labels],
        "attentions": ["batch", model.config.num_attention_heads, 1, "time"],
    }
    assert os.fsencode(os.path.dirname(torch.__file__)) not in path.read_bytes()
    assert b".py" not in path.read_bytes()


@pytest.fixture(scope="module", params=["lstm", "unidirectional-gru"])
def with_contributions(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("contributions") / "model.onnx"
    return export_case(request.param, path, contributions=True), path


@pytest.mark.slow
@pytest.mark.parametrize("kind", MASK_KINDS)
def test_contributions_of_file_equal_model(with_contributions, kind):
    model, path = with_contributions
    session = OnnxSession(path)
    for shape in ((1, 1), (1, 9), (4, 40)):
        ids, mask = torch.randint(12, shape), ragged_mask(*shape, kind)
        with torch.no_grad():
            expected, _ = split_logits(model, {"input_ids": ids, "attention_mask": mask.long()})
        found = session.compute_contributions(ids.numpy(), mask.long().numpy())
        np.testing.assert_allclose(found, expected.numpy(), atol=MANY_STEPS, rtol=0, err_msg=f"{shape}")
        logits, _ = session.run(ids.numpy(), mask.long().numpy())
        total = found.sum(axis=1) + model.classifier.bias.detach().numpy()
        np.testing.assert_allclose(total, logits, atol=MANY_STEPS, rtol=0)
        assert not found[~mask.numpy()].any()


@pytest.mark.slow
def test_file_with_contributions_names_outputs(with_contributions):
    outputs = onnx.load(with_contributions[1]).graph.output
    assert [output.name for output in outputs] == ["logits", "attentions", "contributions"]
    sizes = [size.dim_param or size.dim_value for size in outputs[2].type.tensor_type.shape.dim]
    assert sizes == ["batch", "time", 3]


@pytest.mark.slow
def test_check_onnx_compares_contributions(with_contributions, monkeypatch):
    checks = check_onnx(*with_contributions)
    assert all(check.contributions <= 1e-5 for check in checks)
    compute = OnnxSession.compute_contributions
    monkeypatch.setattr(OnnxSession, "compute_contributions", lambda *args: compute(*args) + 1e-3)
    with pytest.raises(ValueError, match=r"at 1 x 1 tokens: contributions by 1\.0e-03, or they are not 0 at padding"):
        check_onnx(*with_contributions)


@pytest.mark.parametrize(
    ("head", "changes", "settings", "message"),
    [
        ("Token", {}, {"contributions": True}, "contributions must be false for MaskAttnForTokenClassification"),
        ("Sequence", {"attention_implementation": "ragged"}, {}, "must be \"eager\" for the export, got 'ragged'"),
    ],
)
def test_write_onnx_rejects_what_it_cannot_export(tiny_config, tmp_path, head, changes, settings, message):
    model = build_head(f"MaskAttnFor{head}Classification", tiny_config, **changes)
    with pytest.raises(ValueError, match=message):
        write_onnx(model, tmp_path / "model.onnx", **settings)


def test_onnx_file_runs_without_torch(exported, tmp_path):
    model, path = exported("lstm")
    ids, mask = torch.randint(12, (3, 7)), ragged_mask(3, 7, "left")
    expected = run_model(model, ids, mask)
    np.savez(tmp_path / "batch.npz", ids=ids.numpy(), mask=mask.long().numpy(), logits=expected[0], attentions=expected[1])
    code = """
import sys
for name in ("torch", "transformers", "hf_maskattn", "onnx", "onnxscript", "onnx_ir"):
    sys.modules[name] = None
import numpy as np
import onnxruntime
batch = np.load(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1])
inputs = {"input_ids": batch["ids"], "attention_mask": batch["mask"]}
for name, found in zip(("logits", "attentions"), session.run(["logits", "attentions"], inputs), strict=True):
    np.testing.assert_allclose(found, batch[name], atol=float(sys.argv[3]), rtol=0)
print("equal")
"""
    command = [sys.executable, "-c", code, path, tmp_path / "batch.npz", str(MANY_STEPS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.stdout == "equal\n", done.stderr


def test_python_block_of_guide_runs(exported, monkeypatch, pytestconfig):
    (block,) = re.findall(r"^```python\n(.*?)^```$", (pytestconfig.rootpath / "docs/onnx.md").read_text(), re.M | re.S)
    monkeypatch.chdir(exported("lstm")[1].parent)
    names = {}
    exec(compile(block, "docs/onnx.md", "exec"), names)
    assert (names["logits"].shape, names["attentions"].shape) == ((2, 3), (2, 2, 1, 3))


def test_export_onnx_raises_for_fixed_sizes(tiny_config, tmp_path, monkeypatch):
    model = build_head("MaskAttnForSequenceClassification", tiny_config).eval()
    forward = type(model.maskattn).forward

    def fixed_size(self, input_ids, *args, **kwargs):
        torch.zeros(len(input_ids))  # len() is a Python number
        return forward(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(type(model.maskattn), "forward", fixed_size)
    with pytest.raises(Exception, match="batch"):
        write_onnx(model, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
