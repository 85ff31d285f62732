import pytest
import torch

from hf_maskattn.model.tanh import tanh
from tests.tolerances import OUTPUT


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_values_are_those_of_torch(dtype):
    x = torch.cat([torch.linspace(-20, 20, 4001), torch.tensor([0.0, 1e-6, -1e-6, 1e30, -1e30])]).to(dtype)
    torch.testing.assert_close(tanh(x), torch.tanh(x), atol=OUTPUT if dtype == torch.float32 else 0, rtol=0)
    assert tanh(x).abs().max() <= 1


def test_gradients_are_those_of_torch():
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(tanh, x)
    assert torch.autograd.gradgradcheck(tanh, x)
