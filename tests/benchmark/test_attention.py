import torch

from hf_maskattn.benchmark import attention
from hf_maskattn.benchmark.attention import Shape, build_attentions, plan_attention
from hf_maskattn.benchmark.measurement import check_results
from hf_maskattn.model.attention import IMPLEMENTATIONS
from tests.benchmark.conftest import values
from tests.tolerances import assert_same_function

CPU = torch.device("cpu")


def test_all_implementations_are_compared_with_eager():
    outcomes = check_results(build_attentions(Shape(3, 2, 7, 8, "uniform"), CPU))
    assert set(outcomes) == set(IMPLEMENTATIONS)
    assert next(iter(outcomes)) == "eager"
    for name in IMPLEMENTATIONS.keys() - {"eager"}:
        assert_same_function(outcomes[name])
    assert {"context", "weights", "gradient of energy", "gradient of query", "gradient of memory"} <= (
        build_attentions(Shape(1, 1, 2, 4, "equal"), CPU)[0].run().keys()
    )


def test_tables_of_time_and_memory(setting, monkeypatch):
    for name, shapes in {
        "QUICK_SHAPES": (Shape(2, 4, 6, 8, "uniform"),),
        "GROWING_SHAPES": (Shape(2, 16, 32, 16, "equal"), Shape(2, 16, 64, 16, "equal")),
    }.items():
        monkeypatch.setattr(attention, name, shapes)
    times, memory, growing = plan_attention(setting)
    assert all(values(times.cases["B2 Tq4 Tk6 A8, uniform"]()).values())
    assert (memory.unit, growing.unit) == ("MB", "MB")
    short, long = (values(measure())["eager"] for measure in growing.cases.values())
    tanh = 2 * 16 * 32 * 16 * 4 / 1e6  # saved for backward by eager
    assert tanh < short < 5 * tanh
    assert 1.8 < long / short < 2.2
