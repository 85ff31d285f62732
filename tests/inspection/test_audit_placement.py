import torch

from hf_maskattn.inspection.audit_placement import padded_left, padded_right, scattered


def masks(placement):
    return ["".join("x" if real else "." for real in row) for row in placement.mask.tolist()]


def test_where_tokens_go():
    assert masks(padded_right([3, 1, 0])) == ["xxx", "x..", "..."]
    assert masks(padded_right([3, 1], 2)) == ["xxx..", "x...."]
    assert masks(padded_left([3, 1], 2)) == ["..xxx", "....x"]
    assert masks(scattered([3, 2, 1])) == ["x.x..x..", "x....x..", "x......."]
    assert masks(scattered([7, 3])) == ["xx.xx.xx.x..", "x...x....x.."]


def test_values_are_laid_out_over_padding():
    placement = padded_left([2, 1], 1)
    laid_out = placement.fill([torch.tensor([5, 6]), torch.tensor([7])], torch.tensor([[1, 2, 3], [1, 2, 3]]))
    assert laid_out.tolist() == [[1, 5, 6], [1, 2, 7]]
