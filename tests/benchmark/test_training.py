import sys

import pytest
import torch

from hf_maskattn.benchmark import training
from hf_maskattn.benchmark.baselines import WITHOUT_DROPOUT
from hf_maskattn.benchmark.batches import draw_labeled_batch
from hf_maskattn.benchmark.measurement import check_results
from hf_maskattn.benchmark.training import OPERATORS, OTHER, STEP, build_our_steps, build_textbook_steps, plan_training
from tests.benchmark.conftest import values
from tests.tolerances import assert_same_function

CPU = torch.device("cpu")


def test_textbook_gradients_equal_ours(small):
    batches = [draw_labeled_batch([5, 2, 1], CPU)]
    implementations = [
        build_our_steps("ours", batches, CPU, WITHOUT_DROPOUT),
        build_textbook_steps(batches, CPU, WITHOUT_DROPOUT),
    ]
    assert_same_function(check_results(implementations)["textbook"])
    assert {"loss", "gradient of maskattn.pooling.attention.bias"} <= implementations[0].run().keys()
    assert check_results(implementations)["textbook"].unequal, "ours is one step ahead"


def test_tables_of_training_steps(small, setting, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.setattr(training, "PROFILE_RUNS", 1)
    baselines, padding, parts = plan_training(setting)
    row = baselines.cases["random batches, no dropout"]()
    assert values(row)["ours"] > 0
    assert values(row)["textbook"] > 0
    assert_same_function(row.outcomes["textbook"])
    assert baselines.cases["random batches, dropout"]().outcomes["textbook"].difference is None
    assert row.outcomes["Keras 3"].value is None
    assert row.outcomes["Keras 3"].remark == "keras is not installed: pip install keras"
    near, far = padding.cases["without dropout"]().outcomes.values()
    assert_same_function(far)
    assert near.value > 0
    assert padding.cases["with dropout"]().outcomes["padded to 512"].difference is None
    seconds = values(parts.cases["random batches"]())
    assert list(seconds) == [STEP, *OPERATORS, OTHER]
    assert sum(seconds[name] for name in (*OPERATORS, OTHER)) == pytest.approx(seconds[STEP])
    assert all(seconds[name] > 0 for name in (STEP, *OPERATORS))
