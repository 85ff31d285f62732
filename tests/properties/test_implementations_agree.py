"""`eager`, `chunked` (method 1) and `ragged` (method 2) have the same outputs, gradients and training steps."""

import copy

import pytest
import torch
from hypothesis import given

from tests.heads import run
from tests.properties.cases import assert_close, cases

OTHERS = ("ragged", "chunked")


@pytest.mark.parametrize("implementation", OTHERS)
@given(case=cases(attention_implementation="eager"))
def test_implementations_match_eager(implementation, case):
    outputs, gradients = run(case.model, case.ids, case.mask, case.labels)
    other_outputs, other_gradients = run(copy_with(implementation, case.model), case.ids, case.mask, case.labels)
    assert_close(other_outputs, outputs, case.dtype)
    assert_close(other_gradients, gradients, case.dtype, scale=10)


@pytest.mark.parametrize("implementation", OTHERS)
@given(case=cases(attention_implementation="eager", dtypes=(torch.float64,)))
def test_optimizer_steps_match_eager(implementation, case):
    models = (case.model, copy_with(implementation, case.model))
    for model in models:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(2):
            run(model, case.ids, case.mask, case.labels)
            optimizer.step()
    assert_close(*(dict(model.named_parameters()) for model in models), torch.float64, scale=10)


def copy_with(implementation, model):
    """Copy a model with another implementation of attention."""
    other = copy.deepcopy(model)
    getattr(other, "maskattn", other).pooling.attention.implementation = implementation
    return other
