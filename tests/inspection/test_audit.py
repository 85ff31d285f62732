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
from hf_maskattn.inspection.audit import CHECKS, GRADIENT_CHECKS, load_model, load_tokenizer_if_any
from hf_maskattn.inspection.audit_report import FAILURES
from tests.heads import HEADS, build_head
from tests.inspection import toy_models

SOUND = {"exact", "within tolerance"}
TINY = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


def failures(report):
    return {check: str(finding.verdict) for check, finding in report.findings.items() if finding.verdict in FAILURES}


def verdicts(report):
    """All verdicts but that of the one check that needs position ids."""
    return {finding.verdict for check, finding in report.findings.items() if check != "left, no position ids"}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("rnn", ["lstm", "gru"])
@pytest.mark.parametrize("how", ["eager", "ragged"])
def test_our_models_pass_every_check(tiny_config, head, rnn, how):
    model = build_head(head, tiny_config, rnn_type=rnn, attention_implementation=how, num_hidden_layers=2)
    report = audit(model, gradients=True, max_length=12)
    assert [*report.findings] == [*CHECKS, *GRADIENT_CHECKS]
    assert verdicts(report) <= SOUND
    assert report.passed


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("changes", [{}, {"bidirectional": False, "attention_query": "mean", "num_attention_heads": 2}])
def test_our_models_pass_in_other_dtypes(tiny_config, dtype, changes):
    report = audit(build_head("MaskAttnModel", tiny_config, **changes).to(dtype), gradients=True)
    assert verdicts(report) <= SOUND
    assert report.dtype == str(dtype).removeprefix("torch.")


def test_the_sound_toy_passes_every_check():
    assert verdicts(audit(toy_models.Sound(), gradients=True)) <= SOUND


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
    "LooksAtTheRowBefore": ["batch against alone", "empty row", "permuted rows"],
    "ReadsIdsUnderTheMask": ["extra padding left", "junk under the mask", "holes", "gradients under junk"],
}
NOT_FINITE = {
    "MultipliesByMask": ["NaN under the mask"],
    "DividesByZeroInEmptyRows": ["empty row"],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_leaks_in_the_checks_that_are_made_for_it(fault):
    report = audit(getattr(toy_models, fault)(), gradients=True)
    assert failures(report) == dict.fromkeys(FAULTS[fault], "LEAKS")
    assert verdicts(report) <= {*SOUND, "LEAKS"}
    assert not report.passed


@pytest.mark.parametrize("fault", NOT_FINITE)
def test_what_is_not_finite_is_told(fault):
    report = audit(getattr(toy_models, fault)(), gradients=True)
    assert failures(report) == dict.fromkeys(NOT_FINITE[fault], "not finite")
    assert report.passed == (NOT_FINITE[fault] == ["NaN under the mask"])


def test_a_leak_of_gradients_alone():
    model = toy_models.LetsGradientsThrough()
    assert failures(audit(model, gradients=True)) == {
        "NaN under the mask": "not finite",
        "gradients at pads": "LEAKS",
        "gradients under junk": "LEAKS",
    }
    assert not set(GRADIENT_CHECKS) & set(audit(model).findings)


def test_a_leak_is_told_with_its_place():
    findings = audit(toy_models.IgnoresMaskInPooling()).findings
    at_pads = findings["attention to pads"]
    assert (at_pads.output, at_pads.row) == ("attentions[0]", 3)  # the shortest row has the most pads
    assert 0.5 < at_pads.difference < 1
    assert at_pads.tolerance == 1e-5
    alone = findings["batch against alone"]
    assert (alone.output, alone.row) == ("attentions[0]", 3)
    assert findings["permuted rows"].place == ""


def test_a_model_that_refuses_holes_is_judged_by_what_it_accepts():
    report = audit(toy_models.RefusesHoles(), gradients=True)
    refused = {check: finding.reason for check, finding in report.findings.items() if finding.verdict == "refused"}
    assert refused == dict.fromkeys(["extra padding left", "holes"], "ValueError: only right padding is supported")
    assert report.passed
    assert report.findings["junk under the mask"].verdict == "exact"


def test_a_model_without_a_mask_says_so():
    report = audit(toy_models.TakesNoMask())
    assert report.notes == ("TakesNoMask takes no attention_mask: nothing tells it what is padding.",)
    assert {finding.reason for finding in report.findings.values() if finding.verdict == "LEAKS"} == {"takes no attention_mask"}
    nan = report.findings["NaN under the mask"]
    assert (nan.verdict, nan.reason) == ("not applicable", "takes no inputs_embeds")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_too_little_memory_is_told_with_the_way_out(error):
    model = toy_models.RunsOutOfMemory()
    model.error = error
    with pytest.raises(ValueError, match=r"memory ran out \(random ids, 4 rows of 1 to 9 tokens\).*--max-length"):
        audit(model, max_length=9)


def test_too_little_time_is_told_with_the_way_out(tiny_config, monkeypatch, caplog):
    model = build_head("MaskAttnModel", tiny_config)
    audit(model, max_length=9)
    assert not caplog.records
    monkeypatch.setattr("hf_maskattn.inspection.audit.SLOW_START", 0.0)
    audit(model, max_length=9)
    assert "(random ids, 4 rows of 1 to 9 tokens) took 0 s" in caplog.text
    assert "--max-length" in caplog.text


def test_the_model_is_left_as_it_was():
    model = toy_models.Sound().train()
    model.rnn.eval()
    generator_state = torch.get_rng_state()
    audit(model, gradients=True)
    assert model.training
    assert not model.rnn.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.embeddings._forward_hooks
    assert torch.equal(torch.get_rng_state(), generator_state)


def test_dropout_is_off(tiny_config):
    assert audit(build_head("MaskAttnModel", tiny_config, embedding_dropout_prob=0.5)).passed


def test_frozen_models(tiny_config):
    model = build_head("MaskAttnModel", tiny_config).requires_grad_(False)
    findings = audit(model, gradients=True).findings
    assert findings["gradients at pads"].verdict == "exact"
    assert findings["gradients under junk"].reason == "no parameter requires a gradient"


def test_texts_a_tokenizer_and_a_folder(tiny_config, tmp_path):
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


def test_a_padded_batch(tiny_config):
    batch = {"input_ids": torch.tensor([[0, 5, 6], [7, 8, 9]]), "attention_mask": torch.tensor([[0, 1, 1], [1, 1, 1]])}
    report = audit(build_head("MaskAttnForTokenClassification", tiny_config), batch={**batch, "labels": batch["input_ids"]})
    assert report.inputs == "given batch, 2 rows of 2 to 3 tokens"
    assert report.passed
    one_row = {name: value[:1] for name, value in batch.items()}
    report = audit(build_head("MaskAttnModel", tiny_config), batch=one_row)
    assert report.findings["permuted rows"].reason == "the batch has one row"


def test_bad_input(tiny_config, tmp_path):
    model = build_head("MaskAttnModel", tiny_config)
    with pytest.raises(ValueError, match="texts need the tokenizer of the model"):
        audit(model, batch=["a"])
    with pytest.raises(ValueError, match="max_length=0 must be at least 1"):
        audit(model, max_length=0)
    with pytest.raises(
        ValueError, match=r"BertModel cannot read a plain padded batch \(given batch, 1 row of 1 to 1.*IndexError"
    ):
        audit(BertModel(BertConfig(**TINY)), batch={"input_ids": torch.tensor([[99]])})
    with pytest.raises(FileNotFoundError, match="nowhere' is not a folder and"):
        audit(tmp_path / "nowhere")
    pictures = ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8))
    with pytest.raises(ValueError, match=r"ViTModel reads .*pixel_values.*no input_ids: audit is for models of text"):
        audit(pictures)


def test_weights_that_are_not_computed_are_told():
    report = audit(BertModel(BertConfig(**TINY, attn_implementation="sdpa")))
    assert (
        report.findings["attention to pads"].reason
        == 'computes no weights under sdpa: load it with attn_implementation="eager"'
    )
    assert audit(BertModel(BertConfig(**TINY, attn_implementation="eager"))).findings["attention to pads"].verdict == "exact"


def test_outputs_that_cannot_be_compared_are_told():
    config = MixtralConfig(**TINY, num_key_value_heads=2, num_local_experts=2, output_router_logits=True)
    assert audit(MixtralForCausalLM(config)).notes == (
        "Not compared, since they have no row for each row of the batch: router_logits[0].",
    )


@pytest.mark.parametrize("head", HEADS)
def test_our_heads_come_back(tiny_config, tmp_path, head):
    build_head(head, tiny_config).save_pretrained(tmp_path)
    assert type(load_model(tmp_path)).__name__ == head


def test_heads_of_others_come_back(tmp_path):
    BertForSequenceClassification(BertConfig(**TINY)).save_pretrained(tmp_path)
    assert type(load_model(str(tmp_path))) is BertForSequenceClassification


def test_a_class_that_nobody_knows_is_loaded_as_the_bare_model(tmp_path):
    model = BertModel(BertConfig(**TINY))
    model.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"BertModel"', '"BertForNothing"'))
    assert type(load_model(tmp_path)) is BertModel


def test_no_such_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"The model '.*nowhere' is not a folder and"):
        load_model(tmp_path / "nowhere")


def test_a_tokenizer_is_loaded_and_never_made_up(tmp_path):
    BertModel(BertConfig(**TINY)).save_pretrained(tmp_path)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == 5  # special tokens alone, from no file
    assert load_tokenizer_if_any(tmp_path) is None
    train_tokenizer(["a b"], kind="word", vocab_size=20, max_length=8).save_pretrained(tmp_path)
    assert "b" in load_tokenizer_if_any(tmp_path).get_vocab()
