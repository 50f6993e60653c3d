import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from models.ranking import ranking

NONE = np.zeros((1, 4), np.bool_)


def one(scores: list[float], relevant: list[int], k: int, excluded: list[int] | None = None) -> tuple[float, float]:
    """Figures of one user."""
    out = np.zeros((1, len(scores)), np.bool_) if excluded is None else np.array([excluded], np.bool_)
    made = ranking(np.array([scores]), np.array([relevant], np.bool_), out, k)
    return float(made.ndcg[0]), float(made.recall[0])


def in_order(relevant: list[int], k: int) -> tuple[float, float]:
    """The obvious way, of places in their order."""
    gains = [1 / math.log2(position + 1) for position in range(1, len(relevant) + 1)]
    got = sum(gain for gain, here in zip(gains[:k], relevant, strict=False) if here)
    return got / sum(gains[: min(k, sum(relevant))]), sum(relevant[:k]) / sum(relevant)


def over_all_orders(scores: list[float], relevant: list[int], k: int) -> tuple[float, float]:
    """The mean of both figures over every order that the scores allow."""
    figures = [
        in_order([relevant[i] for i in order], k)
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    return tuple(np.mean(figures, axis=0))


@pytest.mark.parametrize(
    ("scores", "relevant", "k", "ndcg", "recall"),
    [
        ([0.9, 0.8, 0.1, 0.0], [1, 0, 0, 0], 2, 1.0, 1.0),
        ([0.9, 0.8, 0.1, 0.0], [0, 1, 0, 0], 2, 1 / math.log2(3), 1.0),
        ([0.9, 0.8, 0.1, 0.0], [0, 0, 1, 0], 2, 0.0, 0.0),
        ([0.9, 0.8, 0.1, 0.0], [1, 0, 1, 0], 2, 1 / (1 + 1 / math.log2(3)), 0.5),
        ([0.9, 0.8, 0.1, 0.0], [1, 1, 1, 1], 2, 1.0, 0.5),
        ([0.9, 0.8, 0.1, 0.0], [0, 0, 0, 1], 10, 1 / math.log2(5), 1.0),
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0], 1, 0.25, 0.25),
        ([0.5, 0.5, 0.5, 0.5], [0, 0, 0, 1], 2, (1 + 1 / math.log2(3)) / 4, 0.5),
    ],
)
def test_by_hand(scores: list[float], relevant: list[int], k: int, ndcg: float, recall: float) -> None:
    assert one(scores, relevant, k) == (pytest.approx(ndcg), pytest.approx(recall))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=6).filter(
        lambda places: any(liked for _, liked in places)
    ),
    st.integers(1, 8),
)
def test_ties_are_the_mean_over_their_orders(places: list[tuple[int, int]], k: int) -> None:
    scores, relevant = [float(score) for score, _ in places], [liked for _, liked in places]
    assert one(scores, relevant, k) == pytest.approx(over_all_orders(scores, relevant, k))


@given(st.integers(0, 10**6), st.integers(1, 12))
def test_agrees_with_scikit_learn(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, (5, 15)) / 6
    relevant = rng.random((5, 15)) < 0.3
    relevant[:, 0] = True
    made = ranking(scores, relevant, np.zeros((5, 15), np.bool_), k)
    assert made.ndcg.mean() == pytest.approx(ndcg_score(relevant, scores, k=k))


@given(st.integers(0, 10**6))
def test_excluded_places_are_as_if_they_were_not_there(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, relevant = rng.integers(0, 6, (1, 12)) / 6, rng.random((1, 12)) < 0.4
    excluded = rng.random((1, 12)) < 0.4
    scores[excluded] += 5.0  # on top, were they ranked
    left = ~excluded
    made = ranking(scores, relevant, excluded, 4)
    alone = ranking(scores[left][None], relevant[left][None], np.zeros((1, left.sum()), np.bool_), 4)
    np.testing.assert_allclose(made, alone)


@given(st.integers(0, 10**6))
def test_the_order_of_businesses_says_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, relevant, excluded = rng.integers(0, 3, (4, 20)) / 2, rng.random((4, 20)) < 0.2, rng.random((4, 20)) < 0.2
    shuffled = rng.permutation(20)
    made = ranking(scores, relevant, excluded, 5)
    np.testing.assert_allclose(made, ranking(scores[:, shuffled], relevant[:, shuffled], excluded[:, shuffled], 5))


def test_a_user_without_a_relevant_place_has_no_figure() -> None:
    scores, relevant = np.array([[0.1, 0.2], [0.1, 0.2], [0.1, 0.2]]), np.array([[0, 0], [0, 1], [0, 1]], np.bool_)
    made = ranking(scores, relevant, np.array([[0, 0], [0, 0], [0, 1]], np.bool_), 10)
    assert np.isnan(made.ndcg).tolist() == np.isnan(made.recall).tolist() == [True, False, True]


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="no finite number"):
        ranking(np.array([[0.1, np.nan, 0.2, 0.3]]), ~NONE, NONE, 2)
