import math
from fractions import Fraction

import numpy as np
import pytest

from models.neyman_pearson import negatives_needed, order_statistic, promise, violation

SIMULATED = 20_000


def rows(disliked: np.ndarray, liked: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Calibration rows: the disliked ones, and some liked ones that must not matter."""
    labels = np.concatenate([np.zeros(len(disliked)), np.ones(liked)]).astype(np.int8)
    return labels, np.concatenate([disliked, np.linspace(0.0, 1.0, liked)])


@pytest.mark.parametrize(("n", "alpha"), [(29, Fraction(1, 10)), (40, Fraction(1, 5)), (7, Fraction(1, 2))])
def test_the_tail_in_fractions(n: int, alpha: Fraction) -> None:
    for k in range(1, n + 1):
        exact = sum(math.comb(n, j) * (1 - alpha) ** j * alpha ** (n - j) for j in range(k, n + 1))
        assert violation(k, n, float(alpha)) == pytest.approx(float(exact))


@pytest.mark.parametrize(
    ("alpha", "delta", "needed"),
    # the last two: 0.5^3 is 0.125 and 0.9^2 is 0.81 exactly, where a rounded quotient of logarithms may say one more
    [(0.1, 0.05, 29), (0.05, 0.05, 59), (0.2, 0.1, 11), (0.5, 0.125, 3), (0.1, 0.81, 2)],
)
def test_how_many_are_needed(alpha: float, delta: float, needed: int) -> None:
    assert negatives_needed(alpha, delta) == needed
    assert order_statistic(needed, alpha, delta) == needed
    with pytest.raises(ValueError, match=f"{needed - 1} negatives cannot promise"):
        order_statistic(needed - 1, alpha, delta)


@pytest.mark.parametrize(("n", "alpha", "delta"), [(29, 0.1, 0.05), (100, 0.1, 0.05), (300, 0.05, 0.1), (60, 0.2, 0.2)])
def test_broken_as_rarely_as_promised_and_the_next_one_is_broken_too_often(n: int, alpha: float, delta: float) -> None:
    """Uniform scores of disliked places: a threshold t has the FPR 1 - t."""
    drawn = np.sort(np.random.default_rng(n).random((SIMULATED, n)), axis=1)
    k = order_statistic(n, alpha, delta)
    slack = 4 * math.sqrt(delta / SIMULATED)
    assert (1 - drawn[:, k - 1] > alpha).mean() <= delta + slack
    assert violation(k - 1, n, alpha) > delta
    assert (1 - drawn[:, k - 2] > alpha).mean() > violation(k - 1, n, alpha) - slack


def test_ties_break_the_promise_no_more_often() -> None:
    """Scores of ten values: many disliked places lie at the threshold itself, and none of those is recommended."""
    rng, alpha, delta = np.random.default_rng(3), 0.15, 0.1
    broken = 0
    for _ in range(2000):
        made = promise(*rows(rng.integers(0, 10, 80) / 10), alpha, delta)
        assert made.threshold is not None
        broken += (np.arange(10) / 10 > made.threshold).mean() > alpha
    assert broken / 2000 <= delta + 4 * math.sqrt(delta / 2000)


def test_the_threshold_is_the_order_statistic_of_the_disliked_alone() -> None:
    disliked = np.random.default_rng(1).permutation(np.arange(100) / 100)
    k = order_statistic(100, 0.1, 0.05)
    for liked in (0, 50):
        made = promise(*rows(disliked, liked), 0.1, 0.05)
        assert (made.threshold, made.negatives, made.needed) == ((k - 1) / 100, 100, 29)
    recommended = made.recommended(disliked)
    assert recommended is not None and recommended.sum() == 100 - k


def test_too_few_are_said_to_be_too_few() -> None:
    made = promise(*rows(np.linspace(0, 1, 28)), 0.1, 0.05)
    assert (made.threshold, made.negatives, made.needed) == (None, 28, 29)
    assert made.recommended(np.ones(3)) is None
    assert promise(*rows(np.linspace(0, 1, 29)), 0.1, 0.05).threshold == 1.0
