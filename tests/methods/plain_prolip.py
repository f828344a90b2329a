"""ProLIP's rule in numpy, the gradient written out: what the tests of ``rla`` and ``prolip`` compare with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]


def unit(rows: Floats) -> Floats:
    norm: Floats = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / norm


def trained_matrix(
    x: Floats,
    start: Floats,
    bias: Floats | float,
    t: Floats,
    labels: Floats,
    scale: float,
    penalty: float,
    peak: float,
    epochs: int,
) -> Floats:
    """The matrix [E, W] after training on inputs [N, W] with labels [N], from unit-norm text embeddings [C, E]."""
    one_hot, matrix = np.eye(len(t))[labels], start.copy()
    first, second = np.zeros_like(matrix), np.zeros_like(matrix)
    for step in range(epochs):
        moved = x @ matrix.T + bias
        norm, u = np.linalg.norm(moved, axis=1, keepdims=True), unit(moved)
        logits = scale * u @ t.T
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        along = (p - one_hot) @ t * scale / len(x)
        along = (along - (along * u).sum(1, keepdims=True) * u) / norm
        gradient = along.T @ x + 2 * penalty * (matrix - start)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        rate = peak / 2 * (1 + np.cos(np.pi * step / epochs))
        unbiased = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
        matrix -= rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-4)
    return matrix
