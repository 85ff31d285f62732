"""Reduction of embeddings to a smaller size, and their scale."""

import torch


def reduce_embeddings(vectors: torch.Tensor, size: int) -> tuple[torch.Tensor, float]:
    """Project vectors onto their first right singular vectors.

    The result is deterministic: each singular vector has the sign that makes its largest component positive.

    Args:
        vectors: `[N, D]`, float. They are not centered.
        size: Size of the result, at most D. Vectors of this size are returned as they are.

    Returns:
        The vectors, `[N, size]`, float32, and the fraction of their squared norm that is kept.

    Numerics:
        The singular vectors are the eigenvectors of `vectors.T @ vectors`, `[D, D]`, in float64.
    """
    if vectors.shape[1] == size:
        return vectors.float(), 1.0
    exact = vectors.double()
    energies, directions = torch.linalg.eigh(exact.T @ exact)  # [D], ascending; [D, D], one direction a column
    directions = directions.flip(1)[:, :size]
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))  # [1, size]
    kept = energies.flip(0)[:size].sum() / energies.sum()
    return (exact @ (directions * largest.sign())).float(), float(kept)


def root_mean_square(vectors: torch.Tensor) -> float:
    """Return the root of the mean of all squared elements."""
    return float(vectors.double().square().mean().sqrt())
