"""Under autocast padding has no effect, weights are probabilities, and outputs and gradients are close to float32."""

import torch
from hypothesis import given

from tests.heads import run
from tests.properties.cases import assert_same_bits, cases
from tests.tolerances import AUTOCAST, WEIGHT_SUM_BY_DTYPE, assert_near


def run_with_autocast(case, ids):
    with torch.autocast("cpu", torch.bfloat16):
        return run(case.model, ids, case.mask, case.labels)


@given(case=cases(dtypes=(torch.float32,)))
def test_bfloat16_autocast(case):
    outputs, gradients = run_with_autocast(case, case.ids)
    random_padding = torch.where(case.mask, case.ids, torch.randint(-(10**6), 10**6, case.ids.shape))
    for actual, expected in zip(run_with_autocast(case, random_padding), (outputs, gradients), strict=True):
        assert_same_bits(actual, expected)
    weights = outputs["attentions.0"]
    assert not weights.masked_select(~case.mask[:, None, None]).any()
    sums = case.mask.any(dim=1).double()[:, None, None].expand(weights.shape[:3])
    torch.testing.assert_close(weights.double().sum(dim=-1), sums, atol=WEIGHT_SUM_BY_DTYPE[torch.bfloat16], rtol=0)
    float32_outputs, float32_gradients = run(case.model, case.ids, case.mask, case.labels)
    for actual, expected in ((outputs, float32_outputs), (gradients, float32_gradients)):
        for key, value in expected.items():
            assert_near(actual[key].float(), value, AUTOCAST, key)
