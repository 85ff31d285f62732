import pytest
import torch

from hf_maskattn.inspection.audit_comparison import compare, judge, worst
from hf_maskattn.inspection.audit_report import Finding, Verdict


def reading(*rows, dtype=torch.float32):
    return {"logits": [torch.tensor(row, dtype=dtype) for row in rows]}


def test_equal_bits_are_exact():
    finding = compare(reading([1.0, 2.0]), reading([1.0, 2.0]))
    assert (finding.verdict, finding.difference) == ("exact", 0)


def test_the_largest_difference_is_told_with_its_place():
    expected, found = reading([[1.0, 2.0]], [[0.0, 0.0], [8.0, 0.0]]), reading([[1.5, 2.0]], [[0.0, 0.0], [8.0, 1.0]])
    assert compare(expected, found, frozenset(["logits"])) == Finding(Verdict.LEAKS, 1.0, 8e-5, "logits", 1, 1)
    assert compare(expected, found).token is None


@pytest.mark.parametrize(
    ("dtype", "share"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 3e-2)]
)
def test_the_tolerance_goes_by_the_dtype_and_by_the_largest_value(dtype, share):
    expected = reading([64.0, 0.0], dtype=torch.float64)
    expected = {"logits": [expected["logits"][0].to(dtype)]}
    within, beyond = ({"logits": [torch.tensor([64.0, factor * 64 * share], dtype=dtype)]} for factor in (0.9, 1.1))
    assert compare(expected, within).verdict == "within tolerance"
    assert compare(expected, beyond).verdict == "LEAKS"
    assert compare(expected, beyond).tolerance == pytest.approx(64 * share)
    assert compare(expected, beyond, scale=128.0).verdict == "within tolerance"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_told_before_any_leak(value):
    expected, found = reading([0.0, 9.0], [1.0, 1.0]), reading([5.0, 9.0], [1.0, value])
    finding = compare(expected, found, frozenset(["logits"]))
    assert (finding.verdict, finding.row, finding.token) == ("not finite", 1, 1)
    assert compare(found, expected).verdict == "not finite"


def test_rows_without_tokens_do_not_count():
    assert compare(reading([], [1.0]), reading([], [1.0])).verdict == "exact"


def test_the_worst_is_furthest_beyond_its_tolerance():
    small, large, exact = judge(1e-3, 1e-6, output="a"), judge(1.0, 1e-1, output="b"), judge(0.0, 0.0)
    assert worst([exact, large, small]) is small
    assert worst([exact, judge(1e-7, 1e-6)]).verdict == "within tolerance"
    assert judge(1e-9, 0.0).verdict == "LEAKS"
    assert worst([small, judge(1e-9, 0.0, output="c")]).output == "c"
