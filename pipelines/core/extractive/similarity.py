"""Similarity of unit vectors: dot products whose bits do not depend on the order in which a library adds."""

import numpy as np
import numpy.typing as npt

GRID = 2.0**20  # components are rounded to its reciprocal: products of 384 of them then add up exactly in float64


def dot_products(some: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(N, M) of unit vectors (N, D) and (M, D)."""
    return _rounded(some) @ _rounded(others).T


def _rounded(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return np.round(vectors.astype(np.float64) * GRID) / GRID
