import pytest
import torch

from hf_maskattn.benchmark import recurrence
from hf_maskattn.benchmark.measurement import check_results
from hf_maskattn.benchmark.recurrence import OURS, PACKED, PADDED, PRODUCTS, Shape, build_recurrences, plan_recurrence
from tests.benchmark.conftest import values
from tests.tolerances import assert_same_function

CPU = torch.device("cpu")


@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
@pytest.mark.parametrize("training", [True, False])
def test_packed_equals_ours_and_padded_does_not(rnn_type, training):
    outcomes = check_results(build_recurrences(rnn_type, 8, [[5, 3, 1], [2, 2]], training, CPU))
    assert_same_function(outcomes[PACKED])
    assert outcomes[PADDED].difference is None
    assert not any(outcome.unequal for outcome in outcomes.values())
    _, packed, padded, _ = build_recurrences(rnn_type, 8, [[5, 3, 1]], training, CPU)
    assert (padded.name, packed.name) == (PADDED, PACKED)
    assert (padded.run()["states 0"] - packed.run()["states 0"]).abs().max() > 1e-3


def test_padded_is_compared_without_padding():
    assert_same_function(check_results(build_recurrences("lstm", 8, [[4, 4]], True, CPU))[PADDED])


def test_gradients_are_compared():
    ours, packed, *_ = build_recurrences("gru", 8, [[3, 1]], True, CPU)
    assert ours.run().keys() == packed.run().keys()
    assert {"states 0", "gradient of input 0", "gradient of weight 7"} <= ours.run().keys()


def test_matrix_products_are_scaled_to_the_tokens():
    # Forward only, one product in each direction: 2 products of 6 tokens, from a product of 4096 rows.
    products = build_recurrences("lstm", 8, [[5, 1]], False, CPU)[-1]
    assert (products.name, products.scale) == (PRODUCTS, 2 * 6 / 4096)
    assert products.run()["product"].shape == (4096, 4 * 4)
    assert build_recurrences("gru", 8, [[5, 1], [2]], True, CPU)[-1].scale == 3 * 2 * 4 / 4096


def test_tables_of_the_recurrence(setting, monkeypatch):
    monkeypatch.setattr(recurrence, "QUICK_SHAPES", (Shape(1, 3, 8, "equal"), Shape(2, 3, 8, "uniform")))
    monkeypatch.setattr(recurrence, "CORPUS_BATCH_SIZE", 4)
    monkeypatch.setattr(recurrence, "CORPUS_HIDDEN_SIZE", 8)
    plans = plan_recurrence(setting)
    assert [plan.title for plan in plans] == ["LSTM, training", "LSTM, inference", "GRU, training", "GRU, inference"]
    assert list(plans[0].cases) == ["1 x 3, 8, equal, 1 thread", "2 x 3, 8, uniform", "4 cldr names, 8, random"]
    for measure in plans[2].cases.values():
        row = measure()
        assert list(values(row)) == [OURS, PACKED, PADDED, PRODUCTS]
        assert all(values(row).values())
        assert all(ratio.compute(row) > 0 for ratio in plans[2].ratios)
