import pytest
import torch

from hf_maskattn.embeddings.reduction import reduce_embeddings, root_mean_square


@pytest.fixture
def vectors():
    return torch.randn(30, 8) @ torch.diag(torch.arange(1.0, 9.0))


def test_reduction_is_the_truncated_svd(vectors):
    reduced, explained = reduce_embeddings(vectors, 3)
    left, values, right = torch.linalg.svd(vectors.double(), full_matrices=False)
    signs = torch.stack([row[row.abs().argmax()].sign() for row in right])
    torch.testing.assert_close(reduced, (left * values * signs)[:, :3].float(), atol=1e-4, rtol=0)
    assert explained == pytest.approx(float(values[:3].square().sum() / values.square().sum()))


def test_reduction_keeps_signs(vectors):
    reduced, order = reduce_embeddings(vectors, 3)[0], torch.randperm(len(vectors))
    torch.testing.assert_close(reduce_embeddings(vectors[order], 3)[0], reduced[order])
    torch.testing.assert_close(reduce_embeddings(-vectors, 3)[0], -reduced)


def test_vectors_of_the_right_size_are_not_changed(vectors):
    reduced, explained = reduce_embeddings(vectors, 8)
    assert torch.equal(reduced, vectors)
    assert explained == 1


def test_root_mean_square():
    assert root_mean_square(torch.tensor([[3.0, 4.0], [0.0, 5.0]])) == pytest.approx(12.5**0.5)
