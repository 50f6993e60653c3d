"""LexRank (Erkan and Radev, 2004): the sentences that most sentences resemble, weighted by how central those are."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

STEPS = 100
TOLERANCE = 1e-10
DIGITS = 9  # of a score: what differs beyond them is a tie, and the order of the sentences decides


def lexrank(similarity: Floats, damping: float) -> Floats:
    """Scores (N,) that sum to 1: where a reader is who goes on to a similar sentence, or with 1 - damping to any.

    `similarity` (N, N) is symmetric and nonnegative with a positive diagonal. Power iteration.
    """
    count = len(similarity)
    walk = similarity / similarity.sum(axis=1, keepdims=True)
    scores = np.full(count, 1 / count)
    for _ in range(STEPS):
        following = (1 - damping) / count + damping * (scores @ walk)
        if np.abs(following - scores).sum() < TOLERANCE:
            return following
        scores = following
    return scores


def ranking(scores: Floats) -> list[int]:
    """Indices from the highest score to the lowest; ties in the order of the sentences."""
    return [int(place) for place in np.argsort(-np.round(scores * len(scores), DIGITS), kind="stable")]
