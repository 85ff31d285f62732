import math
import sys

import pytest
import torch

from hf_maskattn.benchmark import measurement
from hf_maskattn.benchmark.measurement import (
    MAX_ROUNDS,
    MIN_ROUNDS,
    Implementation,
    check_results,
    compare_peak_memory,
    compare_times,
    limit_threads,
    measure_interleaved,
    select_runnable,
)

CPU = torch.device("cpu")
BLOCK = torch.zeros(1000, 250)  # 1 MB


def implementation(name, value, **options):
    return Implementation(name, lambda: {"states": torch.ones(3), "gradient": value}, **options)


@pytest.mark.parametrize(
    ("value", "difference"),
    [
        (torch.tensor([1.0, 2.5]), 0.25),
        (torch.tensor([1.0, torch.nan]), math.inf),
        (torch.tensor([1.0, 2.0, 3.0]), math.inf),
        (None, math.inf),
    ],
)
def test_unequal_results_are_not_timed(value, difference):
    row = compare_times([implementation("ours", torch.tensor([1.0, 2.0])), implementation("baseline", value)], 0.0, CPU)
    outcome = row.outcomes["baseline"]
    assert (outcome.unequal, outcome.value, outcome.difference) == (True, None, difference)
    assert str(outcome) == f"unequal, {difference:.0e} in gradient"
    assert row.outcomes["ours"].value > 0


@pytest.mark.parametrize(("name", "tolerance"), [("states", 1e-5), ("gradient of input", 1e-4)])
def test_check_results_allows_rounding(name, tolerance):
    def check(relative):
        values = {"ours": 2.0, "baseline": 2 * (1 + relative)}
        implementations = [
            Implementation(key, lambda value=value: {name: torch.tensor([value])}) for key, value in values.items()
        ]
        return check_results(implementations)["baseline"]

    assert not check(0.8 * tolerance).unequal
    assert 0 < check(0.8 * tolerance).difference < tolerance
    assert check(1.2 * tolerance).unequal


def test_check_results_accepts_missing_gradients_in_both():
    assert check_results([implementation("ours", None), implementation("baseline", None)])["baseline"].difference == 0


def test_check_results_uses_the_same_random_seed():
    implementations = [Implementation(name, lambda: {"draw": torch.rand(5)}) for name in ("ours", "baseline")]
    assert check_results(implementations)["baseline"].difference == 0


def test_other_functions_are_not_compared_and_missing_ones_not_run():
    implementations = [
        implementation("ours", torch.ones(1)),
        implementation("other", torch.zeros(1), comparable=False, remark="another function"),
        Implementation("absent", None, remark="not installed"),
    ]
    outcomes = check_results(implementations)
    assert [outcome.remark for outcome in outcomes.values()] == ["", "another function", "not installed"]
    assert not any(outcome.unequal for outcome in outcomes.values())
    assert list(select_runnable(implementations, outcomes)) == ["ours", "other"]


def test_runs_are_interleaved_after_a_warm_up():
    calls = []
    times = measure_interleaved({name: lambda name=name: calls.append(name) for name in "abc"}, 0.0, CPU)
    assert calls == list("abc" + "abccbaabc")
    assert {name: len(seconds) for name, seconds in times.items()} == dict.fromkeys("abc", MIN_ROUNDS)


def test_number_of_rounds_is_limited():
    assert len(measure_interleaved({"a": lambda: None}, 60.0, CPU)["a"]) == MAX_ROUNDS


@pytest.fixture
def clock(monkeypatch):
    """A clock that only `advance` moves."""
    now = [0.0]
    monkeypatch.setattr(measurement.time, "perf_counter", lambda: now[0])

    def advance(seconds):
        now[0] += seconds
        return {}

    return advance


def test_times_are_scaled_medians_in_milliseconds(clock):
    # The seconds of: the check of results, the warm-up, three rounds.
    seconds = {"a": iter([9, 9, 0.004, 0.2, 0.004]), "b": iter([9, 9, 0.004, 0.004, 0.004])}
    implementations = [
        Implementation(name, lambda name=name: clock(next(seconds[name])), scale=scale, comparable=False)
        for name, scale in (("a", 1.0), ("b", 0.5))
    ]
    row = compare_times(implementations, 0.0, CPU)
    assert row.runs == MIN_ROUNDS
    assert row.outcomes["a"].value == pytest.approx(4)
    assert row.outcomes["b"].value == pytest.approx(2)
    assert row.outcomes["a"].spread > row.outcomes["b"].spread == 0


def test_compare_times_of_nothing_has_no_runs():
    assert compare_times([Implementation("a", None, remark="absent")], 0.0, CPU).runs == 0


def test_limit_threads_restores_the_number():
    before = torch.get_num_threads()
    with limit_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with limit_threads(None):
        assert torch.get_num_threads() == before


def allocate_at_once():
    return {"sum": (BLOCK + 1) + (BLOCK + 2)}


def allocate_in_sequence():
    for _ in range(2):
        block = BLOCK + 1
        del block
    return {"sum": BLOCK + BLOCK + 3}


def test_peak_memory_is_not_the_sum_of_allocations(capfd):
    implementations = [
        Implementation("three", allocate_at_once),
        Implementation("two", allocate_in_sequence),
        Implementation("absent", None),
        Implementation("unequal", lambda: {"sum": BLOCK}),
    ]
    outcomes = compare_peak_memory(implementations, CPU).outcomes
    assert round(outcomes["three"].value, 2) == 3
    assert round(outcomes["two"].value, 2) == 2
    assert outcomes["absent"].value is None
    assert outcomes["unequal"].unequal
    assert outcomes["unequal"].value is None
    sys.stderr.write("still written\n")
    assert capfd.readouterr().err == "still written\n"
