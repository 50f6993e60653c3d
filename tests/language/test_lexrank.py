"""LexRank against the obvious: the leading eigenvector of the whole matrix."""

import numpy as np
import pytest

from pipelines.core.extractive.lexrank import lexrank, ranking
from pipelines.core.extractive.similarity import dot_products


def unit_vectors(count: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 384)) + 1.0
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def dense_lexrank(similarity: np.ndarray, damping: float) -> np.ndarray:
    """The stationary distribution, entry by entry and by eigenvectors."""
    count = len(similarity)
    matrix = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            matrix[i, j] = (1 - damping) / count + damping * similarity[i, j] / sum(similarity[i])
    values, vectors = np.linalg.eig(matrix.T)
    leading = np.real(vectors[:, np.argmax(np.real(values))])
    return leading / leading.sum()


@pytest.mark.parametrize("count", [1, 2, 7, 60])
@pytest.mark.parametrize("damping", [0.0, 0.5, 0.85])
def test_it_is_the_leading_eigenvector(count, damping):
    vectors = unit_vectors(count, count)
    similarity = np.clip(dot_products(vectors, vectors), 0, None) ** 2
    similarity[np.random.default_rng(1).random((count, count)) < 0.5] *= 0.1  # walks need not be symmetric
    scores = lexrank(similarity, damping)
    np.testing.assert_allclose(scores, dense_lexrank(similarity, damping), atol=1e-8)
    assert scores.sum() == pytest.approx(1)


def test_the_sentence_in_the_middle_is_first_and_a_stranger_last():
    similarity = np.array([[1, 0.9, 0.8, 0], [0.9, 1, 0.9, 0], [0.8, 0.9, 1, 0], [0, 0, 0, 1.0]])
    assert ranking(lexrank(np.maximum(similarity, 1e-3), 0.85))[0] == 1
    assert ranking(lexrank(np.maximum(similarity, 1e-3), 0.85))[-1] == 3


def test_ties_are_in_reading_order():
    assert ranking(lexrank(np.ones((5, 5)), 0.85)) == [0, 1, 2, 3, 4]


def test_dot_products_have_the_same_bits_in_whatever_order_they_are_added():
    vectors = unit_vectors(40, 3)
    shuffled = np.random.default_rng(4).permutation(384)
    np.testing.assert_array_equal(
        dot_products(vectors, vectors), dot_products(vectors[:, shuffled], vectors[:, shuffled])
    )
    np.testing.assert_array_equal(dot_products(vectors[:3], vectors)[1], dot_products(vectors[1:2], vectors)[0])
    np.testing.assert_allclose(dot_products(vectors, vectors), vectors @ vectors.T, atol=1e-5)
