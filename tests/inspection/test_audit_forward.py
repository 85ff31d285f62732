import pytest
import torch
from transformers import CanineConfig, CanineModel, T5Config, T5ForConditionalGeneration

from hf_maskattn.inspection.audit_forward import (
    AuditedModel,
    build_finding,
    compare_outputs,
    read_argument_names,
    select_worst,
)
from hf_maskattn.inspection.audit_report import Finding, Verdict
from hf_maskattn.inspection.audit_rows import build_rows, pad_between, pad_left, pad_right
from tests.heads import build_head
from tests.inspection.toy_models import Correct, RefusesHoles

INFINITY = float("inf")


def build_audited(model, max_length=8):
    rows = build_rows(model, read_argument_names(model), None, None, max_length, seed=0)
    return AuditedModel(model.eval(), rows, seed=0)


def test_token_axes_of_an_encoder(tiny_config):
    # The hidden size equals the number of tokens, but is not an axis of tokens.
    model = build_head("MaskAttnModel", tiny_config, hidden_size=8)
    assert build_audited(model, max_length=8).token_axes == {
        "last_hidden_state": (-2,),
        "pooler_output": (),
        "hidden_states[0]": (-2,),
        "hidden_states[1]": (-2,),
        "attentions[0]": (-1,),
    }


def test_token_axes_of_an_encoder_decoder():
    config = T5Config(
        vocab_size=30, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, attn_implementation="eager", use_cache=True
    )
    axes = build_audited(T5ForConditionalGeneration(config), max_length=4).token_axes
    assert (axes["logits"], axes["decoder_attentions[0]"]) == ((), ())
    assert (axes["encoder_attentions[0]"], axes["cross_attentions[0]"]) == ((-2, -1), (-1,))
    assert not [name for name in axes if "past_key_values" in name]


def test_outputs_with_fewer_positions_are_excluded():
    config = CanineConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=30)
    model = build_audited(CanineModel(config), max_length=16)
    assert "hidden_states[2]" in model.excluded_outputs
    assert model.token_axes["last_hidden_state"] == (-2,)


def test_build_inputs_places_tokens_and_filler(tiny_config):
    model = build_audited(build_head("MaskAttnModel", tiny_config))
    placement = pad_left(model.rows.lengths, 2)
    plain, random = (
        model.build_inputs(model.rows, placement, filler=filler, with_positions=True) for filler in ("padding", "random")
    )
    mask = placement.mask
    assert torch.equal(plain["attention_mask"], mask.long())
    assert plain["position_ids"][-1].tolist() == [0] * 10
    assert plain["position_ids"][0].tolist() == [0, 0, *range(8)]
    assert (plain["input_ids"][~mask] == model.rows.pad_id).all()
    assert (random["input_ids"][~mask] != model.rows.pad_id).all()
    assert torch.equal(plain["input_ids"][mask], random["input_ids"][mask])
    assert "position_ids" not in model.build_inputs(model.rows, placement)


def test_compute_returns_outputs_at_tokens(tiny_config):
    model = build_audited(build_head("MaskAttnModel", tiny_config))
    outputs = model.compute(pad_left(model.rows.lengths, 2))
    assert [len(row) for row in outputs["last_hidden_state"]] == model.rows.lengths
    assert [row.shape for row in outputs["pooler_output"]] == [torch.Size([8])] * 4
    assert [len(row) for row in outputs["attentions[0]"]] == model.rows.lengths


def test_inner_padding_is_what_the_model_accepts():
    for model, expected in ((Correct(), pad_between([8, 6, 3, 1])), (RefusesHoles(), pad_right([8, 6, 3, 1], 5))):
        assert torch.equal(build_audited(model).inner_padding.mask, expected.mask)


def build_outputs(*rows, dtype=torch.float32):
    return {"logits": [torch.tensor(row, dtype=dtype) for row in rows]}


def test_equal_outputs_are_exact():
    finding = compare_outputs(build_outputs([1.0, 2.0]), build_outputs([1.0, 2.0]))
    assert (finding.verdict, finding.difference) == ("exact", 0)


def test_largest_difference_is_located():
    expected, actual = (
        build_outputs([[1.0, 2.0]], [[0.0, 0.0], [8.0, 0.0]]),
        build_outputs([[1.5, 2.0]], [[0.0, 0.0], [8.0, 1.0]]),
    )
    assert compare_outputs(expected, actual, frozenset(["logits"])) == Finding(Verdict.LEAKS, 1.0, 8e-5, "logits", 1, 1)
    assert compare_outputs(expected, actual).token is None


@pytest.mark.parametrize(
    ("dtype", "fraction"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 3e-2)]
)
def test_tolerance_depends_on_dtype_and_largest_value(dtype, fraction):
    expected = build_outputs([64.0, 0.0], dtype=torch.float64)
    expected = {"logits": [expected["logits"][0].to(dtype)]}
    within, beyond = ({"logits": [torch.tensor([64.0, factor * 64 * fraction], dtype=dtype)]} for factor in (0.9, 1.1))
    assert compare_outputs(expected, within).verdict == "within tolerance"
    assert compare_outputs(expected, beyond).verdict == "LEAKS"
    assert compare_outputs(expected, beyond).tolerance == pytest.approx(64 * fraction)
    assert compare_outputs(expected, beyond, scale=128.0).verdict == "within tolerance"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite_outputs_precede_leaks(value):
    expected, actual = build_outputs([0.0, 9.0], [1.0, 1.0]), build_outputs([5.0, 9.0], [1.0, value])
    finding = compare_outputs(expected, actual, frozenset(["logits"]))
    assert (finding.verdict, finding.row, finding.token) == ("not finite", 1, 1)
    assert compare_outputs(actual, expected).verdict == "not finite"


def test_rows_without_tokens_are_equal():
    assert compare_outputs(build_outputs([], [1.0]), build_outputs([], [1.0])).verdict == "exact"


def test_select_worst_is_relative_to_tolerance():
    small, large, exact = build_finding(1e-3, 1e-6, output="a"), build_finding(1.0, 1e-1, output="b"), build_finding(0.0, 0.0)
    assert select_worst([exact, large, small]) is small
    assert select_worst([exact, build_finding(1e-7, 1e-6)]).verdict == "within tolerance"
    assert build_finding(1e-9, 0.0).verdict == "LEAKS"
    assert select_worst([small, build_finding(1e-9, 0.0, output="c")]).output == "c"


@pytest.mark.parametrize(
    ("logits", "verdict"),
    [([-INFINITY, 3.0], "EXACT"), ([-INFINITY, 2.0], "LEAKS"), ([0.0, 3.0], "NOT_FINITE"), ([INFINITY, 3.0], "NOT_FINITE")],
)
def test_minus_infinity_in_both_outputs_is_equal(logits, verdict):
    expected, actual = ({"logits": [torch.tensor([row])]} for row in ([-INFINITY, 3.0], logits))
    assert compare_outputs(expected, actual, frozenset({"logits"})).verdict is Verdict[verdict]
