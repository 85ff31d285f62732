import pytest
import torch

from hf_maskattn.benchmark import classifiers, inference
from hf_maskattn.benchmark.classifiers import our_classifier, transformer_classifier
from hf_maskattn.benchmark.inference import inference_plans, model_ways, precision_ways
from hf_maskattn.benchmark.training import labeled_batch
from hf_maskattn.benchmark.ways import check
from tests.tolerances import assert_same_function

CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch):
    """A small model and small batches."""
    monkeypatch.setattr(classifiers, "RECIPE", {**classifiers.RECIPE, "embedding_size": 6, "hidden_size": 8})
    monkeypatch.setattr(inference, "BATCH_SIZE", 4)


def test_the_transformer_has_as_many_parameters():
    ours = our_classifier().num_parameters()
    assert ours <= transformer_classifier(ours).num_parameters() < 1.1 * ours


def test_the_textbook_equals_ours(small):
    outcomes = check(model_ways([labeled_batch([5, 2, 1], CPU)], CPU))
    assert_same_function(outcomes["textbook"])
    assert outcomes["DistilBERT"].difference is None


@pytest.mark.parametrize("has_bf16", [True, False])
def test_16_bits_are_measured_where_there_are_instructions(small, monkeypatch, has_bf16):
    monkeypatch.setattr(inference, "has_bf16", lambda device: has_bf16)
    ways = precision_ways([labeled_batch([5, 2, 1], CPU)], CPU)
    assert [way.name for way in ways] == ["fp32", "bf16 weights", "bf16 autocast"]
    for way in ways[1:]:
        if has_bf16:
            torch.testing.assert_close(way.run()["logits 0"].float(), ways[0].run()["logits 0"], atol=0.05, rtol=0.05)
        else:
            assert (way.run, way.remark) == (None, "this CPU has no bf16 instructions")


def test_tables(small, setting, values):
    models, _ = inference_plans(setting)
    assert list(models.cases) == ["one text of 32 tokens", "4 cldr names"]
    assert all(values(models.cases["4 cldr names"]()).values())
