import pytest
import torch

from hf_maskattn.model import real_tokens
from hf_maskattn.model.real_tokens import over_real_tokens
from tests.masks import MASK_KINDS, ragged_mask
from tests.tolerances import GRADIENT, OUTPUT


@pytest.fixture
def seen(monkeypatch):
    """A linear map that tells the shapes of its inputs, where any number of pads pays."""
    monkeypatch.setattr(real_tokens, "_FEW_PADS", 0)
    monkeypatch.setattr(real_tokens, "_LITTLE_WORK", 0)
    shapes, module = [], torch.nn.Linear(3, 4)

    def function(x):
        shapes.append(tuple(x.shape))
        return module(x)

    function.shapes = shapes
    return function


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_values_and_gradients_are_those_of_the_real_tokens(seen, kind):
    mask = ragged_mask(4, 7, kind)
    x = torch.randn(4, 7, 3, requires_grad=True)
    y = over_real_tokens(seen, x, mask, 4)
    assert seen.shapes == [(int(mask.sum()), 3)]
    assert torch.equal(y, torch.where(mask[..., None], y, 0))
    direction = torch.randn_like(y)
    (found,) = torch.autograd.grad((y * direction).sum(), x)
    (expected,) = torch.autograd.grad((torch.where(mask[..., None], seen(x), 0) * direction).sum(), x)
    torch.testing.assert_close(y, torch.where(mask[..., None], seen(x), 0), atol=OUTPUT, rtol=0)
    torch.testing.assert_close(found, expected, atol=GRADIENT, rtol=0)
    assert not found[~mask].any()


def test_ids_may_be_the_tokens(seen):
    embedding = torch.nn.Embedding(9, 4)
    ids, mask = torch.randint(9, (3, 5)), ragged_mask(3, 5, "holes")
    assert torch.equal(over_real_tokens(embedding, ids, mask, 4), torch.where(mask[..., None], embedding(ids), 0))


@pytest.mark.parametrize(
    ("lengths", "width"), [((8, 8, 7), 10**6), ((1, 0, 0), 4), ((0, 0, 0), 10**6)], ids=["few pads", "little work", "no token"]
)
def test_a_batch_goes_whole_where_nothing_is_won(lengths, width):
    mask = torch.arange(8) < torch.tensor(lengths)[:, None]
    shapes = []
    over_real_tokens(lambda x: shapes.append(tuple(x.shape)) or x, torch.randn(3, 8, 3), mask, width)
    assert shapes == [(3, 8, 3)]
