import pytest
import torch
from transformers import CanineConfig, CanineModel, T5Config, T5ForConditionalGeneration

from hf_maskattn.inspection.audit_forward import AuditedModel, compare, judge, signature_of, worst
from hf_maskattn.inspection.audit_report import Finding, Verdict
from hf_maskattn.inspection.audit_rows import padded_left, padded_right, rows_for, scattered
from tests.heads import build_head
from tests.inspection.toy_models import RefusesHoles, Sound


def audited(model, max_length=8):
    signature = signature_of(model)
    rows = rows_for(model, signature.names, None, None, max_length, seed=0)
    return AuditedModel(model.eval(), signature, rows, seed=0)


def test_which_axes_count_tokens(tiny_config):
    # A width that equals the number of tokens is no axis of tokens.
    model = build_head("MaskAttnModel", tiny_config, hidden_size=8)
    assert audited(model, max_length=8).axes == {
        "last_hidden_state": (-2,),
        "pooler_output": (),
        "hidden_states[0]": (-2,),
        "hidden_states[1]": (-2,),
        "attentions[0]": (-1,),
    }


def test_the_axes_of_an_encoder_decoder_count_tokens_of_the_encoder():
    config = T5Config(
        vocab_size=30, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, attn_implementation="eager", use_cache=True
    )
    axes = audited(T5ForConditionalGeneration(config), max_length=4).axes
    assert (axes["logits"], axes["decoder_attentions[0]"]) == ((), ())
    assert (axes["encoder_attentions[0]"], axes["cross_attentions[0]"]) == ((-2, -1), (-1,))
    assert not [name for name in axes if "past_key_values" in name]


def test_states_of_several_tokens_together_are_left_out():
    config = CanineConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=30)
    model = audited(CanineModel(config), max_length=16)
    assert "hidden_states[2]" in model.left_out
    assert model.axes["last_hidden_state"] == (-2,)


def test_inputs(tiny_config):
    model = audited(build_head("MaskAttnModel", tiny_config))
    placement = padded_left(model.rows.lengths, 2)
    plain, junk = (model.inputs(model.rows, placement, pads=pads, positions=True) for pads in ("padding", "junk"))
    mask = placement.mask
    assert torch.equal(plain["attention_mask"], mask.long())
    assert plain["position_ids"][-1].tolist() == [0] * 10
    assert plain["position_ids"][0].tolist() == [0, 0, *range(8)]
    assert (plain["input_ids"][~mask] == model.rows.pad_id).all()
    assert (junk["input_ids"][~mask] != model.rows.pad_id).all()
    assert torch.equal(plain["input_ids"][mask], junk["input_ids"][mask])
    assert "position_ids" not in model.inputs(model.rows, placement)


def test_readings_hold_real_tokens_alone(tiny_config):
    model = audited(build_head("MaskAttnModel", tiny_config))
    reading = model.read(padded_left(model.rows.lengths, 2))
    assert [len(row) for row in reading["last_hidden_state"]] == model.rows.lengths
    assert [row.shape for row in reading["pooler_output"]] == [torch.Size([8])] * 4
    assert [len(row) for row in reading["attentions[0]"]] == model.rows.lengths


def test_pads_within_are_what_the_model_accepts():
    for model, expected in ((Sound(), scattered([8, 6, 3, 1])), (RefusesHoles(), padded_right([8, 6, 3, 1], 5))):
        assert torch.equal(audited(model).pads_within.mask, expected.mask)


def reading(*rows, dtype=torch.float32):
    return {"logits": [torch.tensor(row, dtype=dtype) for row in rows]}


def test_equal_bits_are_exact():
    finding = compare(reading([1.0, 2.0]), reading([1.0, 2.0]))
    assert (finding.verdict, finding.difference) == ("exact", 0)


def test_the_largest_difference_is_told_with_its_place():
    expected, found = reading([[1.0, 2.0]], [[0.0, 0.0], [8.0, 0.0]]), reading([[1.5, 2.0]], [[0.0, 0.0], [8.0, 1.0]])
    assert compare(expected, found, frozenset(["logits"])) == Finding(Verdict.LEAKS, 1.0, 8e-5, "logits", 1, 1)
    assert compare(expected, found).token is None


@pytest.mark.parametrize(
    ("dtype", "share"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 3e-2)]
)
def test_the_tolerance_goes_by_the_dtype_and_by_the_largest_value(dtype, share):
    expected = reading([64.0, 0.0], dtype=torch.float64)
    expected = {"logits": [expected["logits"][0].to(dtype)]}
    within, beyond = ({"logits": [torch.tensor([64.0, factor * 64 * share], dtype=dtype)]} for factor in (0.9, 1.1))
    assert compare(expected, within).verdict == "within tolerance"
    assert compare(expected, beyond).verdict == "LEAKS"
    assert compare(expected, beyond).tolerance == pytest.approx(64 * share)
    assert compare(expected, beyond, scale=128.0).verdict == "within tolerance"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_told_before_any_leak(value):
    expected, found = reading([0.0, 9.0], [1.0, 1.0]), reading([5.0, 9.0], [1.0, value])
    finding = compare(expected, found, frozenset(["logits"]))
    assert (finding.verdict, finding.row, finding.token) == ("not finite", 1, 1)
    assert compare(found, expected).verdict == "not finite"


def test_rows_without_tokens_do_not_count():
    assert compare(reading([], [1.0]), reading([], [1.0])).verdict == "exact"


def test_the_worst_is_furthest_beyond_its_tolerance():
    small, large, exact = judge(1e-3, 1e-6, output="a"), judge(1.0, 1e-1, output="b"), judge(0.0, 0.0)
    assert worst([exact, large, small]) is small
    assert worst([exact, judge(1e-7, 1e-6)]).verdict == "within tolerance"
    assert judge(1e-9, 0.0).verdict == "LEAKS"
    assert worst([small, judge(1e-9, 0.0, output="c")]).output == "c"
