import pytest
import torch

from hf_maskattn.benchmark import rnnsearch
from hf_maskattn.benchmark.measurement import check_results
from hf_maskattn.benchmark.report import Outcome, Row
from hf_maskattn.benchmark.rnnsearch import (
    Shape,
    build_decodings,
    build_our_rnnsearch,
    build_trainings,
    convert_to_tokens_per_second,
    plan_rnnsearch,
)
from tests.benchmark.conftest import values
from tests.tolerances import assert_same_function

CPU = torch.device("cpu")
SHAPE = Shape(3, 4, 5, 8)


def test_baselines_train_like_ours():
    implementations = build_trainings(SHAPE, CPU)
    outcomes = check_results(implementations)
    assert list(outcomes) == ["ours", "careful", "tutorial"]
    for name in ("careful", "tutorial"):
        assert_same_function(outcomes[name])
    results = implementations[0].run()
    assert {"loss", "gradient of rnnsearch.decoder.attention.energy", "gradient of lm_head.bias"} <= results.keys()
    assert check_results(implementations)["careful"].unequal, "ours is one step ahead"


@pytest.mark.parametrize("num_beams", [1, 3])
def test_baselines_decode_like_ours(num_beams):
    implementations = build_decodings(SHAPE, num_beams, CPU)
    outcomes = check_results(implementations)
    assert outcomes["careful"].difference == outcomes["tutorial"].difference == 0
    tokens = implementations[0].run()["tokens"]
    assert tokens.shape == (3, 5)
    assert len(tokens.unique()) > 2


def test_rates_are_tokens_per_second():
    row = convert_to_tokens_per_second(Row({"ours": Outcome(500.0), "tutorial": Outcome(remark="unequal")}, runs=7), SHAPE)
    assert row.outcomes["ours"].value == 30
    assert row.outcomes["tutorial"].value is None
    assert row.runs == 7


def test_our_model_never_ends_and_has_the_sizes_of_the_paper():
    model = build_our_rnnsearch(SHAPE)
    config = model.config
    logits = model(torch.tensor([[5]]), decoder_input_ids=torch.tensor([[1]])).logits
    assert logits[..., config.eos_token_id] < logits.amin() + 1 < logits.median() - 1000
    assert (config.hidden_size, config.decoder_hidden_size, config.attention_size, config.embedding_size) == (16, 8, 8, 4)


def test_tables_of_training_and_decoding(setting, monkeypatch):
    monkeypatch.setattr(rnnsearch, "SHAPES", (SHAPE,))
    training, greedy, beams = plan_rnnsearch(setting)
    assert (training.unit, greedy.unit, beams.unit) == ("ms", "tokens/s", "tokens/s")
    for plan in (training, greedy):
        row = plan.cases["B3, 4 x 5, H 8"]()
        measured = values(row)
        assert all(measured.values())
        for ratio, baseline in zip(plan.ratios, ("careful", "tutorial"), strict=True):
            assert ratio.heading == f"times faster than {baseline}"
            faster = measured[baseline] / measured["ours"] if plan is training else measured["ours"] / measured[baseline]
            assert ratio.compute(row) == pytest.approx(faster)
