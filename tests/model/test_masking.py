import pytest
import torch

from hf_maskattn.model import masking
from hf_maskattn.model.masking import (
    apply_to_tokens,
    build_token_mask,
    drop_tokens,
    find_token_columns,
    masked_softmax,
    segment_softmax,
)
from tests.masks import MASK_KINDS, ragged_mask
from tests.tolerances import GRADIENT, OUTPUT

SHAPE, CPU = torch.Size([2, 3]), torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.bfloat16], ids=str)
def test_build_token_mask_converts_any_dtype(dtype):
    attention_mask = torch.tensor([[0, 1, 1], [1, 0, 0]])
    assert torch.equal(build_token_mask(SHAPE, CPU, attention_mask.to(dtype)), attention_mask.bool())


def test_build_token_mask_without_mask():
    assert build_token_mask(SHAPE, CPU).all()


def test_build_token_mask_from_lengths():
    assert build_token_mask(SHAPE, CPU, lengths=torch.tensor([2, 0])).tolist() == [[True, True, False], [False] * 3]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"attention_mask": torch.ones(2, 4)}, ValueError, r"must have shape \[2, 3\] as the inputs, got \[2, 4\]."),
        ({"attention_mask": torch.ones(2, 1, 3)}, ValueError, r"got \[2, 1, 3\]."),
        (
            {"attention_mask": torch.tensor([[0, 1, 2], [1, 1, 1]])},
            ValueError,
            r"must hold only 1 \(token\) and 0 \(padding\), got 2",
        ),
        ({"attention_mask": torch.tensor([[0.0, -torch.inf, 0.0]] * 2)}, ValueError, "got -inf. Additive masks"),
        ({"attention_mask": torch.full((2, 3), torch.nan)}, ValueError, "got nan."),
        ({"lengths": torch.tensor([4, 1])}, ValueError, r"`lengths` must be in \[0, 3\], the columns of this batch, got 4."),
        ({"lengths": torch.tensor([-1, 1])}, ValueError, "got -1."),
        ({"lengths": torch.tensor([[1], [2]])}, ValueError, r"must have shape \[2\], one number for each row, got \[2, 1\]."),
        (
            {"lengths": torch.tensor([1.0, 2.0])},
            TypeError,
            "must have an integer dtype such as torch.int64, got torch.float32.",
        ),
        ({"lengths": torch.tensor([1, 2]), "attention_mask": torch.ones(2, 3)}, ValueError, "must be given, got both."),
    ],
)
def test_build_token_mask_rejects_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        build_token_mask(SHAPE, CPU, **arguments)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [([[0, 1, 0, 0, 0], [0, 0, 0, 1, 0]], (1, 4, 5)), ([[1, 1], [0, 1]], (0, 2, 2)), ([[0, 0, 0]], (0, 1, 3))],
)
def test_token_columns_crop_and_pad(mask, expected):
    mask = torch.tensor(mask).bool()
    columns = find_token_columns(mask)
    assert columns == expected
    x = torch.randn(*mask.shape, 2) * mask[..., None]
    assert torch.equal(columns.pad(columns.crop(x), 1), x)
    weights = x[:, None, None, :, 0]  # [B, 1, 1, T]
    assert torch.equal(columns.pad(weights[..., columns.start : columns.stop], 3), weights)


def test_find_token_columns_without_columns():
    assert find_token_columns(torch.zeros(2, 0, dtype=torch.bool)) == (0, 0, 0)


@pytest.fixture
def linear(monkeypatch):
    """A linear map that records the shapes of its inputs; any padding is skipped."""
    monkeypatch.setattr(masking, "_FEW_PADDING", 0)
    monkeypatch.setattr(masking, "_LITTLE_WORK", 0)
    shapes, module = [], torch.nn.Linear(3, 4)

    def function(x):
        shapes.append(tuple(x.shape))
        return module(x)

    function.shapes = shapes
    return function


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_apply_to_tokens_values_and_gradients(linear, kind):
    mask = ragged_mask(4, 7, kind)
    x = torch.randn(4, 7, 3, requires_grad=True)
    y = apply_to_tokens(linear, x, mask, 4)
    assert linear.shapes == [(int(mask.sum()), 3)]
    assert torch.equal(y, torch.where(mask[..., None], y, 0))
    direction = torch.randn_like(y)
    (actual,) = torch.autograd.grad((y * direction).sum(), x)
    (expected,) = torch.autograd.grad((torch.where(mask[..., None], linear(x), 0) * direction).sum(), x)
    torch.testing.assert_close(y, torch.where(mask[..., None], linear(x), 0), atol=OUTPUT, rtol=0)
    torch.testing.assert_close(actual, expected, atol=GRADIENT, rtol=0)
    assert not actual[~mask].any()


def test_apply_to_tokens_accepts_ids(linear):
    embedding = torch.nn.Embedding(9, 4)
    ids, mask = torch.randint(9, (3, 5)), ragged_mask(3, 5, "holes")
    assert torch.equal(apply_to_tokens(embedding, ids, mask, 4), torch.where(mask[..., None], embedding(ids), 0))


@pytest.mark.parametrize(
    ("lengths", "width"),
    [((8, 8, 7), 10**6), ((1, 0, 0), 4), ((0, 0, 0), 10**6)],
    ids=["little padding", "little work", "no token"],
)
def test_apply_to_tokens_keeps_batch_where_skipping_is_useless(lengths, width):
    mask = torch.arange(8) < torch.tensor(lengths)[:, None]
    shapes = []
    apply_to_tokens(lambda x: shapes.append(tuple(x.shape)) or x, torch.randn(3, 8, 3), mask, width)
    assert shapes == [(3, 8, 3)]


def test_masked_softmax_by_hand():
    scores = torch.tensor([[1.0, 2, 3, 4], [5, 5, 5, 5], [1, 1, 1, 1]])
    mask = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]).bool()
    expected = torch.tensor([[0.26894142, 0.73105858, 0, 0], [0, 0.5, 0, 0.5], [0, 0, 0, 0]])
    torch.testing.assert_close(masked_softmax(scores, mask), expected, atol=OUTPUT, rtol=0)


def test_masked_softmax_without_mask_has_no_padding():
    scores = torch.randn(3, 4, dtype=torch.float16)
    assert torch.equal(masked_softmax(scores, None), masked_softmax(scores, torch.ones(3, 4, dtype=torch.bool)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_masked_softmax_normalizes_16_bits_in_float32(dtype):
    scores = torch.full((1, 3000), 7.0, dtype=dtype)
    weights = masked_softmax(scores, torch.ones(1, 3000, dtype=torch.bool))
    assert weights.dtype == dtype
    assert weights[0, 0] == torch.tensor(1 / 3000).to(dtype)


def test_softmax_of_overflowed_float16_scores_is_finite():
    scores = torch.tensor([[torch.inf, 1.0, torch.inf], [-torch.inf, -torch.inf, 0.0]], dtype=torch.float16)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    expected = torch.tensor([[0.5, 0.0, 0.5], [0.5, 0.5, 0.0]], dtype=torch.float16)
    assert torch.equal(masked_softmax(scores, mask), expected)
    assert torch.equal(segment_softmax(scores[mask], mask.nonzero()[:, 0], 2), expected[mask])


def test_masked_softmax_has_no_gradient_at_padding():
    scores = torch.randn(3, 4, requires_grad=True)
    mask = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 0, 0]]).bool()
    (masked_softmax(scores, mask) * torch.randn(3, 4)).sum().backward()
    assert not scores.grad[~mask].any()
    assert scores.grad.isfinite().all()


def test_drop_tokens_keeps_at_least_one_token():
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]]).bool()
    assert torch.equal(drop_tokens(mask, 1.0), mask)
    kept = drop_tokens(torch.ones(200, 50, dtype=torch.bool), 0.3)
    assert 0.65 < kept.float().mean() < 0.75
