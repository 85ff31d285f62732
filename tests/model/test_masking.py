import pytest
import torch

from hf_maskattn.model.masking import real_columns, real_token_mask

SHAPE, CPU = torch.Size([2, 3]), torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.bfloat16], ids=str)
def test_any_zero_one_dtype_becomes_bool(dtype):
    given = torch.tensor([[0, 1, 1], [1, 0, 0]])
    assert torch.equal(real_token_mask(SHAPE, CPU, given.to(dtype)), given.bool())


def test_nothing_given_means_all_real():
    assert real_token_mask(SHAPE, CPU).all()


def test_lengths_are_right_padding():
    assert real_token_mask(SHAPE, CPU, lengths=torch.tensor([2, 0])).tolist() == [[True, True, False], [False] * 3]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"attention_mask": torch.ones(2, 4)}, ValueError, r"shape \[2, 4\].*\[2, 3\] tokens"),
        ({"attention_mask": torch.ones(2, 1, 3)}, ValueError, r"shape \[2, 1, 3\]"),
        ({"attention_mask": torch.tensor([[0, 1, 2], [1, 1, 1]])}, ValueError, "holds 2: only 1"),
        ({"attention_mask": torch.tensor([[0.0, -torch.inf, 0.0]] * 2)}, ValueError, "holds -inf.*additive"),
        ({"attention_mask": torch.full((2, 3), torch.nan)}, ValueError, "holds nan"),
        ({"lengths": torch.tensor([4, 1])}, ValueError, "holds 4, a row of this batch has 0 to 3 tokens"),
        ({"lengths": torch.tensor([-1, 1])}, ValueError, "holds -1"),
        ({"lengths": torch.tensor([[1], [2]])}, ValueError, r"shape \[2, 1\].*2 rows"),
        ({"lengths": torch.tensor([1.0, 2.0])}, TypeError, r"torch.float32: pass whole numbers"),
        ({"lengths": torch.tensor([1, 2]), "attention_mask": torch.ones(2, 3)}, ValueError, "both given"),
    ],
)
def test_bad_input_is_named(arguments, error, words):
    with pytest.raises(error, match=words):
        real_token_mask(SHAPE, CPU, **arguments)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ([[0, 1, 0, 0, 0], [0, 0, 0, 1, 0]], (1, 4, 5)),
        ([[1, 1], [0, 1]], (0, 2, 2)),
        ([[0, 0, 0]], (0, 1, 3)),
    ],
)
def test_columns_without_a_real_token_are_cut_and_put_back(mask, expected):
    mask = torch.tensor(mask).bool()
    columns = real_columns(mask)
    assert columns == expected
    x = torch.randn(*mask.shape, 2) * mask[..., None]
    assert torch.equal(columns.widen(columns.cut(x), 1), x)
    weights = x[:, None, None, :, 0]  # [B, 1, 1, T]
    assert torch.equal(columns.widen(weights[..., columns.start : columns.stop], 3), weights)


def test_a_batch_without_columns_keeps_none():
    assert real_columns(torch.zeros(2, 0, dtype=torch.bool)) == (0, 0, 0)
