import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    MixtralConfig,
    MixtralForCausalLM,
    ViTConfig,
    ViTModel,
)

from hf_maskattn import audit
from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.inspection.audit import load_model, load_tokenizer_if_any
from hf_maskattn.inspection.audit_checks import CHECKS, GRADIENT_CHECKS
from hf_maskattn.inspection.audit_report import FAILURES
from tests.heads import HEADS, build_head, head_class
from tests.inspection import toy_models

PASSED = {"exact", "within tolerance"}
TINY = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


def failures(report):
    return {check: str(finding.verdict) for check, finding in report.findings.items() if finding.verdict in FAILURES}


def verdicts(report):
    """All verdicts, without that of the check that needs position ids."""
    return {finding.verdict for check, finding in report.findings.items() if check != "left, no position ids"}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("rnn", ["lstm", "gru"])
@pytest.mark.parametrize("implementation", ["eager", "ragged"])
def test_our_models_pass_every_check(tiny_config, head, rnn, implementation):
    model = build_head(head, tiny_config, rnn_type=rnn, attention_implementation=implementation, num_hidden_layers=2)
    report = audit(model, gradients=True, max_length=12)
    assert [*report.findings] == [*CHECKS, *GRADIENT_CHECKS]
    assert verdicts(report) <= PASSED
    assert report.passed


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("changes", [{}, {"bidirectional": False, "attention_query": "mean", "num_attention_heads": 2}])
def test_our_models_pass_in_other_dtypes(tiny_config, dtype, changes):
    report = audit(build_head("MaskAttnModel", tiny_config, **changes).to(dtype), gradients=True)
    assert verdicts(report) <= PASSED
    assert report.dtype == str(dtype).removeprefix("torch.")


def test_correct_toy_model_passes_every_check():
    assert verdicts(audit(toy_models.Correct(), gradients=True)) <= PASSED


FAULTS = {
    "IgnoresMaskInRecurrence": ["batch against alone", "extra padding right", "extra padding left", "holes"],
    "IgnoresMaskInPooling": [
        *("batch against alone", "extra padding right", "extra padding left", "holes"),
        *("attention to pads", "attention to tokens"),
    ],
    "ZeroesAfterSoftmax": [
        *("batch against alone", "extra padding right", "extra padding left", "holes"),
        "attention to tokens",
    ],
    "NormalizesOverTheBatch": ["batch against alone"],
    "ReadsThePreviousRow": ["batch against alone", "empty row", "permuted rows"],
    "ReadsIdsUnderTheMask": ["extra padding left", "junk under the mask", "holes", "gradients under junk"],
}
NOT_FINITE = {"MultipliesByMask": ["NaN under the mask"], "DividesByZeroInEmptyRows": ["empty row"]}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_leaks_in_its_checks(fault):
    report = audit(getattr(toy_models, fault)(), gradients=True)
    assert failures(report) == dict.fromkeys(FAULTS[fault], "LEAKS")
    assert verdicts(report) <= {*PASSED, "LEAKS"}
    assert not report.passed


@pytest.mark.parametrize("fault", NOT_FINITE)
def test_not_finite_outputs_are_found(fault):
    report = audit(getattr(toy_models, fault)(), gradients=True)
    assert failures(report) == dict.fromkeys(NOT_FINITE[fault], "not finite")
    assert report.passed == (NOT_FINITE[fault] == ["NaN under the mask"])


def test_leak_in_gradients_only():
    model = toy_models.LeaksGradients()
    found = failures(audit(model, gradients=True))
    assert found == {"NaN under the mask": "not finite", "gradients at pads": "LEAKS", "gradients under junk": "LEAKS"}
    assert not set(GRADIENT_CHECKS) & set(audit(model).findings)


def test_leak_is_located():
    findings = audit(toy_models.IgnoresMaskInPooling()).findings
    at_padding = findings["attention to pads"]
    assert (at_padding.output, at_padding.row) == ("attentions[0]", 3)  # the shortest row has the most padding
    assert 0.5 < at_padding.difference < 1
    assert at_padding.tolerance == 1e-5
    single_rows = findings["batch against alone"]
    assert (single_rows.output, single_rows.row) == ("attentions[0]", 3)
    assert findings["permuted rows"].place == ""


def test_model_that_rejects_holes_is_checked_without_them():
    report = audit(toy_models.RefusesHoles(), gradients=True)
    refused = {check: finding.reason for check, finding in report.findings.items() if finding.verdict == "refused"}
    assert refused == dict.fromkeys(["extra padding left", "holes"], "ValueError: only right padding is supported")
    assert report.passed
    assert report.findings["junk under the mask"].verdict == "exact"


def test_model_without_mask_has_a_note():
    report = audit(toy_models.TakesNoMask())
    assert report.notes == ("TakesNoMask takes no attention_mask, so it cannot distinguish tokens from padding.",)
    assert {finding.reason for finding in report.findings.values() if finding.verdict == "LEAKS"} == {
        "the model takes no attention_mask"
    }
    nan = report.findings["NaN under the mask"]
    assert (nan.verdict, nan.reason) == ("not applicable", "the model takes no inputs_embeds")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_out_of_memory_suggests_shorter_rows(error):
    model = toy_models.RunsOutOfMemory()
    model.error = error
    with pytest.raises(ValueError, match=r"ran out of memory \(random ids, 4 rows of 1 to 9 tokens\).*--max-length"):
        audit(model, max_length=9)


def test_slow_audit_suggests_shorter_rows(tiny_config, monkeypatch, caplog):
    model = build_head("MaskAttnModel", tiny_config)
    audit(model, max_length=9)
    assert not caplog.records
    monkeypatch.setattr("hf_maskattn.inspection.audit.SLOW_FORWARD_SECONDS", 0.0)
    audit(model, max_length=9)
    assert "(random ids, 4 rows of 1 to 9 tokens) took 0 s" in caplog.text
    assert "--max-length" in caplog.text


def test_audit_restores_the_model():
    model = toy_models.Correct().train()
    model.rnn.eval()
    generator_state = torch.get_rng_state()
    audit(model, gradients=True)
    assert model.training
    assert not model.rnn.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.embeddings._forward_hooks
    assert torch.equal(torch.get_rng_state(), generator_state)


def test_audit_disables_dropout(tiny_config):
    assert audit(build_head("MaskAttnModel", tiny_config, embedding_dropout_prob=0.5)).passed


def test_audit_of_a_frozen_model(tiny_config):
    model = build_head("MaskAttnModel", tiny_config).requires_grad_(False)
    findings = audit(model, gradients=True).findings
    assert findings["gradients at pads"].verdict == "exact"
    assert findings["gradients under junk"].reason == "no parameter requires a gradient"


def test_audit_of_texts_and_folders(tiny_config, tmp_path):
    tokenizer = train_tokenizer(["a b c d e"], kind="word", vocab_size=20, max_length=8)
    model = build_head("MaskAttnForTokenClassification", tiny_config)
    texts = audit(model, tokenizer, ["a", "b c d"])
    assert texts.inputs == "texts, 2 rows of 1 to 3 tokens"
    assert audit(model, tokenizer).inputs.startswith("texts, 4 rows of ")
    model.save_pretrained(tmp_path)
    assert audit(tmp_path).inputs.startswith("random ids, 4 rows of ")
    tokenizer.save_pretrained(tmp_path)
    from_folder = audit(str(tmp_path), batch=["a", "b c d"])
    assert from_folder.findings == texts.findings
    assert from_folder.model == "MaskAttnForTokenClassification"


def test_audit_of_a_padded_batch(tiny_config):
    batch = {"input_ids": torch.tensor([[0, 5, 6], [7, 8, 9]]), "attention_mask": torch.tensor([[0, 1, 1], [1, 1, 1]])}
    report = audit(build_head("MaskAttnForTokenClassification", tiny_config), batch={**batch, "labels": batch["input_ids"]})
    assert report.inputs == "given batch, 2 rows of 2 to 3 tokens"
    assert report.passed
    one_row = {name: value[:1] for name, value in batch.items()}
    report = audit(build_head("MaskAttnModel", tiny_config), batch=one_row)
    assert report.findings["permuted rows"].reason == "the batch has only one row"


def test_audit_rejects_bad_input(tiny_config, tmp_path):
    model = build_head("MaskAttnModel", tiny_config)
    with pytest.raises(ValueError, match="`tokenizer` must be given if `batch` is texts"):
        audit(model, batch=["a"])
    with pytest.raises(ValueError, match="`max_length` must be at least 1, got 0"):
        audit(model, max_length=0)
    with pytest.raises(ValueError, match=r"BertModel fails on a right-padded batch \(given batch, 1 row of 1 to 1.*IndexError"):
        audit(BertModel(BertConfig(**TINY)), batch={"input_ids": torch.tensor([[99]])})
    with pytest.raises(FileNotFoundError, match="nowhere' is not a folder and"):
        audit(tmp_path / "nowhere")
    vision_model = ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8))
    with pytest.raises(ValueError, match=r"`model` must be a text model with `input_ids`, got ViTModel with .*pixel_values"):
        audit(vision_model)


def test_attention_checks_need_eager_attention():
    report = audit(BertModel(BertConfig(**TINY, attn_implementation="sdpa")))
    reason = report.findings["attention to pads"].reason
    assert reason == 'sdpa computes no attention weights; load the model with attn_implementation="eager"'
    assert audit(BertModel(BertConfig(**TINY, attn_implementation="eager"))).findings["attention to pads"].verdict == "exact"


def test_outputs_without_rows_are_noted():
    config = MixtralConfig(**TINY, num_key_value_heads=2, num_local_experts=2, output_router_logits=True)
    assert audit(MixtralForCausalLM(config)).notes == (
        "Not compared, since they have no entry for each row: router_logits[0].",
    )


@pytest.mark.parametrize("head", HEADS)
def test_load_model_restores_our_heads(tiny_config, tmp_path, head):
    build_head(head, tiny_config).save_pretrained(tmp_path)
    assert type(load_model(tmp_path)) is head_class(head)


def test_load_model_restores_bert(tmp_path):
    BertForSequenceClassification(BertConfig(**TINY)).save_pretrained(tmp_path)
    assert type(load_model(str(tmp_path))) is BertForSequenceClassification


def test_load_model_of_unknown_class_is_the_bare_model(tmp_path):
    model = BertModel(BertConfig(**TINY))
    model.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"BertModel"', '"BertForNothing"'))
    assert type(load_model(tmp_path)) is BertModel


def test_load_tokenizer_if_any_needs_files(tmp_path):
    BertModel(BertConfig(**TINY)).save_pretrained(tmp_path)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == 5  # transformers creates one with special tokens only
    assert load_tokenizer_if_any(tmp_path) is None
    train_tokenizer(["a b"], kind="word", vocab_size=20, max_length=8).save_pretrained(tmp_path)
    assert "b" in load_tokenizer_if_any(tmp_path).get_vocab()
