import pytest
import torch

from hf_maskattn.embeddings.reduction import reduce_embeddings, root_mean_square


@pytest.fixture
def vectors():
    return torch.randn(30, 8) @ torch.diag(torch.arange(1.0, 9.0))


def test_reduction_is_the_truncated_svd(vectors):
    reduced, explained = reduce_embeddings(vectors, 7)
    left, values, right = torch.linalg.svd(vectors.double(), full_matrices=False)
    signs = torch.stack([row[row.abs().argmax()].sign() for row in right])
    torch.testing.assert_close(reduced, (left * values * signs)[:, :7].float(), atol=1e-4, rtol=0)
    assert explained == pytest.approx(float(values[:7].square().sum() / values.square().sum()))


def test_reduction_does_not_depend_on_signs_of_eigenvectors(vectors, monkeypatch):
    expected, eigh = reduce_embeddings(vectors, 3)[0], torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: (eigh(matrix)[0], -eigh(matrix)[1]))
    assert torch.equal(reduce_embeddings(vectors, 3)[0], expected)


def test_vectors_of_the_right_size_are_not_changed(vectors):
    reduced, explained = reduce_embeddings(vectors, 8)
    assert torch.equal(reduced, vectors)
    assert explained == 1


def test_root_mean_square():
    assert root_mean_square(torch.tensor([[3.0, 4.0], [0.0, 5.0]])) == pytest.approx(12.5**0.5)
