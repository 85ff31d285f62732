import pytest
import torch

from hf_maskattn.benchmark import recurrence
from hf_maskattn.benchmark.recurrence import Shape, recurrence_plans
from hf_maskattn.benchmark.recurrent_ways import LIMIT, OURS, PACKED, PADDED, recurrent_ways
from hf_maskattn.benchmark.ways import check
from tests.tolerances import assert_same_function

CPU = torch.device("cpu")


@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
@pytest.mark.parametrize("training", [True, False])
def test_rivals_equal_ours_and_padding_is_wrong(rnn_type, training):
    outcomes = check(recurrent_ways(rnn_type, 8, [[5, 3, 1], [2, 2]], training, CPU))
    assert_same_function(outcomes[PACKED])
    assert outcomes[PADDED].difference is None
    assert not any(outcome.unequal for outcome in outcomes.values())
    padded = next(way for way in recurrent_ways(rnn_type, 8, [[5, 3, 1]], training, CPU) if way.name == PADDED)
    packed = next(way for way in recurrent_ways(rnn_type, 8, [[5, 3, 1]], training, CPU) if way.name == PACKED)
    assert (padded.run()["states 0"] - packed.run()["states 0"]).abs().max() > 1e-3


def test_padding_is_held_to_equality_where_there_is_none():
    assert_same_function(check(recurrent_ways("lstm", 8, [[4, 4]], True, CPU))[PADDED])


def test_gradients_are_compared():
    ours, packed, *_ = recurrent_ways("gru", 8, [[3, 1]], True, CPU)
    assert ours.run().keys() == packed.run().keys()
    assert {"states 0", "gradient of input 0", "gradient of weight 7"} <= ours.run().keys()


def test_the_limit_counts_the_products_of_token_mask():
    # Forward only, one direction after the other: two products of 6 real tokens, from a product of 4096 rows.
    limit = recurrent_ways("lstm", 8, [[5, 1]], False, CPU)[-1]
    assert (limit.name, limit.scale) == (LIMIT, 2 * 6 / 4096)
    assert limit.run()["product"].shape == (4096, 4 * 4)
    assert recurrent_ways("gru", 8, [[5, 1], [2]], True, CPU)[-1].scale == 3 * 2 * 4 / 4096


def test_tables(setting, monkeypatch, values):
    monkeypatch.setattr(recurrence, "QUICK_SHAPES", (Shape(2, 3, 8, "uniform"),))
    monkeypatch.setattr(recurrence, "REAL_BATCH_SIZE", 4)
    monkeypatch.setattr(recurrence, "REAL_HIDDEN_SIZE", 8)
    plans = recurrence_plans(setting)
    assert [plan.title for plan in plans] == ["LSTM, training", "LSTM, inference", "GRU, training", "GRU, inference"]
    assert list(plans[0].cases) == ["2 x 3, 8, uniform", "4 cldr names, 8, random"]
    for measure in plans[2].cases.values():
        row = measure()
        assert list(values(row)) == [OURS, PACKED, PADDED, LIMIT]
        assert all(values(row).values())
        assert all(ratio.of(row) > 0 for ratio in plans[2].ratios)
