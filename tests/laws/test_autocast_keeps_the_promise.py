"""Law: under autocast pads stay invisible, weights stay probabilities, and outputs and gradients are near those of float32."""

import torch
from hypothesis import given

from tests.heads import run
from tests.laws.cases import assert_same_bits, cases
from tests.tolerances import AUTOCAST, WEIGHT_SUM_BY_DTYPE, assert_near


def run_in_16_bits(case, ids):
    with torch.autocast("cpu", torch.bfloat16):
        return run(case.model, ids, case.mask, case.labels)


@given(case=cases(dtypes=(torch.float32,)))
def test_bfloat16(case):
    outputs, gradients = run_in_16_bits(case, case.ids)
    junk = torch.where(case.mask, case.ids, torch.randint(-(10**6), 10**6, case.ids.shape))
    for found, expected in zip(run_in_16_bits(case, junk), (outputs, gradients), strict=True):
        assert_same_bits(found, expected)
    weights = outputs["attentions.0"]
    assert not weights.masked_select(~case.mask[:, None, None]).any()
    sums = case.mask.any(dim=1).double()[:, None, None].expand(weights.shape[:3])
    torch.testing.assert_close(weights.double().sum(dim=-1), sums, atol=WEIGHT_SUM_BY_DTYPE[torch.bfloat16], rtol=0)
    wide_outputs, wide_gradients = run(case.model, case.ids, case.mask, case.labels)
    for found, expected in ((outputs, wide_outputs), (gradients, wide_gradients)):
        for key, value in expected.items():
            assert_near(found[key].float(), value, AUTOCAST, key)
