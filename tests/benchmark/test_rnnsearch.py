import pytest
import torch

from hf_maskattn.benchmark import rnnsearch
from hf_maskattn.benchmark.report import Outcome, Row
from hf_maskattn.benchmark.rnnsearch import Shape, decoding_ways, our_rnnsearch, rnnsearch_plans, training_ways, words_a_second
from hf_maskattn.benchmark.ways import check
from tests.tolerances import assert_same_function

CPU = torch.device("cpu")
SHAPE = Shape(3, 4, 5, 8)


def test_a_training_step_is_the_same_in_all_forms():
    ways = training_ways(SHAPE, CPU)
    outcomes = check(ways)
    assert list(outcomes) == ["ours", "careful", "tutorial"]
    for name in ("careful", "tutorial"):
        assert_same_function(outcomes[name])
    assert {"loss", "gradient of rnnsearch.decoder.attention.energy", "gradient of lm_head.bias"} <= ways[0].run().keys()
    assert check(ways)["careful"].unequal, "ours is one step ahead"


@pytest.mark.parametrize("beams", [1, 3])
def test_all_forms_find_the_same_words_up_to_the_last(beams):
    ways = decoding_ways(SHAPE, beams, CPU)
    outcomes = check(ways)
    assert outcomes["careful"].difference == outcomes["tutorial"].difference == 0
    words = ways[0].run()["words"]
    assert words.shape == (3, 5)
    assert len(words.unique()) > 2


def test_rates_are_words_of_all_rows_in_a_second():
    row = words_a_second(Row({"ours": Outcome(500.0), "tutorial": Outcome(remark="unequal")}, runs=7), SHAPE)
    assert row.outcomes["ours"].value == 30
    assert row.outcomes["tutorial"].value is None
    assert row.runs == 7


def test_the_model_never_ends_a_target_and_has_the_proportions_of_the_paper():
    model = our_rnnsearch(SHAPE)
    config = model.config
    logits = model(torch.tensor([[5]]), decoder_input_ids=torch.tensor([[1]])).logits
    assert logits[..., config.eos_token_id] < logits.amin() + 1 < logits.median() - 1000
    assert (config.hidden_size, config.decoder_hidden_size, config.attention_size, config.embedding_size) == (16, 8, 8, 4)


def test_tables(setting, monkeypatch, values):
    monkeypatch.setattr(rnnsearch, "SHAPES", (SHAPE,))
    training, greedy, beams = rnnsearch_plans(setting)
    assert (training.unit, greedy.unit, beams.unit) == ("ms", "words/s", "words/s")
    for plan in (training, greedy):
        row = plan.cases["B3, 4 x 5, H 8"]()
        found = values(row)
        assert all(found.values())
        for ratio, rival in zip(plan.ratios, ("careful", "tutorial"), strict=True):
            assert ratio.heading == f"times faster than {rival}"
            faster = found[rival] / found["ours"] if plan is training else found["ours"] / found[rival]
            assert ratio.of(row) == pytest.approx(faster)
