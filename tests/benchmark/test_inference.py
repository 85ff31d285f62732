import pytest
import torch

from hf_maskattn.benchmark import inference
from hf_maskattn.benchmark.batches import draw_labeled_batch
from hf_maskattn.benchmark.inference import build_precisions, plan_inference
from tests.benchmark.conftest import values
from tests.tolerances import assert_same_function

CPU = torch.device("cpu")


@pytest.mark.slow
def test_table_compares_ours_with_equal_baselines(small, setting, monkeypatch):
    monkeypatch.setattr(inference, "BATCH_SIZE", 4)
    models, _ = plan_inference(setting)
    row = models.cases["4 cldr names"]()
    assert list(values(row)) == ["ours", "ours by onnxruntime", "textbook", "DistilBERT"]
    assert all(values(row).values())
    assert_same_function(row.outcomes["ours by onnxruntime"])
    assert_same_function(row.outcomes["textbook"])
    assert row.outcomes["DistilBERT"].difference is None


@pytest.mark.parametrize("has_bf16", [True, False])
def test_bf16_needs_instructions(small, monkeypatch, has_bf16):
    monkeypatch.setattr(inference, "has_bf16", lambda device: has_bf16)
    implementations = build_precisions([draw_labeled_batch([5, 2, 1], CPU)], CPU)
    assert [implementation.name for implementation in implementations] == ["fp32", "bf16 weights", "bf16 autocast"]
    expected = implementations[0].run()["logits 0"]
    for implementation in implementations[1:]:
        if has_bf16:
            torch.testing.assert_close(implementation.run()["logits 0"].float(), expected, atol=0.05, rtol=0.05)
        else:
            assert (implementation.run, implementation.remark) == (None, "this CPU has no bf16 instructions")


def test_single_text_is_measured_with_one_thread(small, setting, monkeypatch):
    threads = []

    def record_threads(*arguments):
        threads.append(torch.get_num_threads())

    monkeypatch.setattr(inference, "compare_times", record_threads)
    monkeypatch.setattr(inference, "build_models", lambda *arguments: [])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        models, _ = plan_inference(setting)
        assert list(models.cases) == ["one text of 32 tokens, 1 thread", "32 cldr names"]
        assert "single text runs on one thread, batches on 2" in models.caption
        for measure in models.cases.values():
            measure()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads == [1, 2]
