import torch

from hf_maskattn.benchmark import attention
from hf_maskattn.benchmark.attention import Shape, attention_plans, attention_ways
from hf_maskattn.benchmark.ways import check
from hf_maskattn.model.attention import IMPLEMENTATIONS
from tests.tolerances import assert_same_function

CPU = torch.device("cpu")


def test_all_implementations_are_compared_with_eager():
    outcomes = check(attention_ways(Shape(3, 2, 7, 8, "uniform"), CPU))
    assert set(outcomes) == set(IMPLEMENTATIONS)
    assert next(iter(outcomes)) == "eager"
    for name in IMPLEMENTATIONS.keys() - {"eager"}:
        assert_same_function(outcomes[name])
    assert {"context", "weights", "gradient of energy", "gradient of query", "gradient of memory"} <= (
        attention_ways(Shape(1, 1, 2, 4, "equal"), CPU)[0].run().keys()
    )


def test_tables(setting, monkeypatch, values):
    for name, shapes in {
        "QUICK_SHAPES": (Shape(2, 4, 6, 8, "uniform"),),
        "GROWING_SHAPES": (Shape(2, 16, 32, 16, "equal"), Shape(2, 16, 64, 16, "equal")),
    }.items():
        monkeypatch.setattr(attention, name, shapes)
    times, memory, growing = attention_plans(setting)
    assert all(values(times.cases["B2 Tq4 Tk6 A8, uniform"]()).values())
    assert (memory.unit, growing.unit) == ("MB", "MB")
    short, long = (values(measure())["eager"] for measure in growing.cases.values())
    kept = 2 * 16 * 32 * 16 * 4 / 1e6  # the tanh of all queries and keys, which eager keeps
    assert kept < short < 5 * kept
    assert 1.8 < long / short < 2.2
