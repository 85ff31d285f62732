import time

import pytest
import torch

from hf_maskattn.benchmark.timing import FEWEST_RUNS, MOST_RUNS, interleaved_times, race
from hf_maskattn.benchmark.ways import Way

CPU = torch.device("cpu")


def test_every_way_takes_its_turn_in_every_round():
    calls = []
    times = interleaved_times({name: lambda name=name: calls.append(name) for name in "abc"}, 0.0, CPU)
    warm_up, rounds = calls[:3], calls[3:]
    assert warm_up == list("abc")
    assert rounds == list("abccbaabc")
    assert {name: len(found) for name, found in times.items()} == dict.fromkeys("abc", FEWEST_RUNS)


def test_short_runs_are_many_but_not_endless():
    assert len(interleaved_times({"a": lambda: None}, 60.0, CPU)["a"]) == MOST_RUNS


def test_the_median_is_in_milliseconds_and_scaled():
    def sleep():
        time.sleep(0.004)
        return {"state": torch.ones(1)}

    row = race([Way("a", sleep), Way("b", sleep, scale=0.5)], 0.0, CPU)
    assert row.runs == FEWEST_RUNS
    assert 4 <= row.outcomes["a"].value < 40
    assert 2 <= row.outcomes["b"].value < 20
    assert row.outcomes["a"].spread >= 0


def test_an_outlier_does_not_count():
    pauses = iter([0, 0, 0.2, 0, 0])  # the check, the warm-up, three runs
    row = race([Way("a", lambda: time.sleep(next(pauses)) or {})], 0.0, CPU)
    assert row.outcomes["a"].value < 100
    assert next(pauses, None) is None


def test_nothing_to_measure_gives_no_runs():
    assert race([Way("a", None, remark="absent")], 0.0, CPU).runs == 0


@pytest.mark.parametrize("count", [1, 2])
def test_the_first_round_is_left_out(count):
    pauses = {name: iter([0.1, 0, 0, 0]) for name in "ab"[:count]}
    times = interleaved_times({name: lambda p=p: time.sleep(next(p)) for name, p in pauses.items()}, 0.0, CPU)
    assert all(max(found) < 0.1 for found in times.values())
