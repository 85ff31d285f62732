import math

import pytest
import torch

from hf_maskattn.benchmark.timing import race
from hf_maskattn.benchmark.ways import Way, check, measurable

CPU = torch.device("cpu")


def way(name, value, **options):
    return Way(name, lambda: {"states": torch.ones(3), "gradient": value}, **options)


@pytest.mark.parametrize(
    ("value", "difference"),
    [
        (torch.tensor([1.0, 2.5]), 0.25),
        (torch.tensor([1.0, torch.nan]), math.inf),
        (torch.tensor([1.0, 2.0, 3.0]), math.inf),
        (None, math.inf),
    ],
)
def test_a_way_with_another_result_has_no_time(value, difference):
    row = race([way("ours", torch.tensor([1.0, 2.0])), way("rival", value)], 0.0, CPU)
    outcome = row.outcomes["rival"]
    assert (outcome.unequal, outcome.value, outcome.difference) == (True, None, difference)
    assert str(outcome) == f"unequal, {difference:.0e} in gradient"
    assert row.outcomes["ours"].value > 0


@pytest.mark.parametrize(("name", "tolerance"), [("states", 1e-5), ("gradient of input", 1e-4)])
def test_rounding_is_no_difference(name, tolerance):
    def outcome(share):
        values = {"ours": 2.0, "rival": 2 * (1 + share)}
        return check([Way(way, lambda value=value: {name: torch.tensor([value])}) for way, value in values.items()])["rival"]

    assert not outcome(0.8 * tolerance).unequal
    assert 0 < outcome(0.8 * tolerance).difference < tolerance
    assert outcome(1.2 * tolerance).unequal


def test_no_gradient_equals_no_gradient():
    assert check([way("ours", None), way("rival", None)])["rival"].difference == 0


def test_random_draws_are_the_same():
    ways = [Way(name, lambda: {"draw": torch.rand(5)}) for name in ("ours", "rival")]
    assert check(ways)["rival"].difference == 0


def test_what_is_another_function_is_not_compared_and_what_cannot_run_is_left_out():
    ways = [
        way("ours", torch.ones(1)),
        way("other", torch.zeros(1), comparable=False, remark="another function"),
        Way("absent", None, remark="not installed"),
    ]
    outcomes = check(ways)
    assert [outcome.remark for outcome in outcomes.values()] == ["", "another function", "not installed"]
    assert not any(outcome.unequal for outcome in outcomes.values())
    assert list(measurable(ways, outcomes)) == ["ours", "other"]
