"""How well scores put a user's liked places on top, over the whole catalogue: NDCG@k and recall@k by user.

Sampled candidates would rank recommenders otherwise than the whole catalogue does (Krichene and Rendle, 2020).

Letters: U users, B businesses.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Ranking(NamedTuple):
    """(U,) each, NaN for a user without a relevant place."""

    ndcg: Floats
    recall: Floats


def ranking(scores: Floats, relevant: Bools, excluded: Bools, k: int) -> Ranking:
    """NDCG@k and recall@k of scores (U, B), finite; `excluded` places (U, B) are no candidates, whatever else is said.

    NDCG@k is sum over the first k of relevant / log2(1 + position), over the most that this sum could be; recall@k the
    share of relevant places among the first k, so that with more than k of them it cannot reach 1.

    Places of one score are in every order equally often: both figures are the expectation over these orders. Any
    fixed order would be knowledge that the scores have not (ids, and with them a table's order, tell of age).
    """
    if not np.isfinite(scores).all():
        raise ValueError("a score is no finite number, and cannot be ranked")
    wanted = relevant & ~excluded
    ranked, hits = expected_relevance(np.where(excluded, -np.inf, scores), wanted, k)
    counts = wanted.sum(axis=1)
    discounts = 1 / np.log2(np.arange(2, ranked + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(counts, ranked)]
    none = counts == 0
    ndcg = hits @ discounts / np.where(none, np.nan, ideal)
    return Ranking(ndcg, hits.sum(axis=1) / np.where(none, np.nan, counts))


def expected_relevance(scores: Floats, relevant: Bools, k: int) -> tuple[int, Floats]:
    """How many positions there are, P = min(k, B), and the chance (U, P) that a relevant place stands at each."""
    users, places = scores.shape
    order = np.argsort(-scores, axis=1, kind="stable")
    sorted_scores = np.take_along_axis(scores, order, axis=1)
    begins = np.ones((users, places), np.bool_)
    begins[:, 1:] = sorted_scores[:, 1:] != sorted_scores[:, :-1]
    starts = np.flatnonzero(begins)  # of each run of ties; a run never goes on into the next user
    found = np.take_along_axis(relevant, order, axis=1).ravel().astype(np.float64)
    lengths = np.diff(np.append(starts, found.size))
    shares = np.add.reduceat(found, starts) / lengths if found.size else found
    positions = min(k, places)
    return positions, np.repeat(shares, lengths).reshape(users, places)[:, :positions]
