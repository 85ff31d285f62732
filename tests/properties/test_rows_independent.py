"""A row has the same outputs in a batch as alone, and permuted rows have permuted outputs."""

import hypothesis.strategies as st
import torch
from hypothesis import given

from tests.heads import run
from tests.properties.cases import assert_close, cases


def outputs_of_rows(case, index):
    """Return the outputs of some rows, without the loss, which belongs to the whole batch."""
    outputs, _ = run(case.model, *case.rows(index))
    return {key: value for key, value in outputs.items() if key != "loss.0"}


@given(case=cases())
def test_batch_matches_single_rows(case):
    batched = outputs_of_rows(case, slice(None))
    for row in range(len(case.ids)):
        single = outputs_of_rows(case, slice(row, row + 1))
        assert_close(single, {key: value[row : row + 1] for key, value in batched.items()}, case.dtype)


@given(case=cases(), seed=st.integers(0, 1000))
def test_permuted_rows_have_permuted_outputs(case, seed):
    order = torch.randperm(len(case.ids), generator=torch.Generator().manual_seed(seed))
    batched = outputs_of_rows(case, slice(None))
    assert_close(outputs_of_rows(case, order), {key: value[order] for key, value in batched.items()}, case.dtype)


@given(case=cases(dtypes=(torch.float64, torch.float32)))
def test_batch_gradients_are_sums_over_rows(case):
    total: dict[str, torch.Tensor] = {}
    count = 0
    _, gradients = run(case.model, case.ids, case.mask, case.labels)
    for row in range(len(case.ids)):
        ids, mask, labels = case.rows(slice(row, row + 1))
        weight = 1 if labels is None else int((labels != -100).sum())
        count += weight
        for key, value in run(case.model, ids, mask, labels)[1].items():
            total[key] = total.get(key, 0) + weight * value
    scale = 1 if case.labels is None else max(count, 1)
    assert_close({key: value / scale for key, value in total.items()}, gradients, case.dtype, scale=4)
