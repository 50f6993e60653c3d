"""The measures, against figures that one can work out by hand."""

import numpy as np
import pytest

from benchmarks.language_quality import (
    interval,
    majority_guess,
    permutation_p,
    precision_recall,
    rank_correlation,
    rouge,
)


def test_rouge_is_the_mean_over_the_references():
    pytest.importorskip("rouge_score")
    [[one, two, longest]] = rouge(["the cat sat"], [["the cat sat", "a dog ran"]])
    assert (one, two, longest) == (50, 50, 50)
    [[one, two, longest]] = rouge(["cats sitting the"], [["the cat sits"]])
    assert (one, two, round(longest)) == (100, 50, 67)  # stemmed: cat sit the, the cat sit
    assert rouge([], []).shape == (0, 3)


def test_rank_correlation_shares_the_ranks_of_ties():
    first, second = np.array([1.0, 2, 2, 3]), np.array([10.0, 20, 30, 40])
    # ranks 1 2.5 2.5 4 and 1 2 3 4: 4.5 / sqrt(4.5 * 5)
    assert rank_correlation(first, second) == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert rank_correlation(first, -second) == pytest.approx(-4.5 / np.sqrt(4.5 * 5))
    assert np.isnan(rank_correlation(np.ones(4), second))


def test_the_permutation_test_knows_order_from_chance():
    rng = np.random.default_rng(0)
    values = rng.normal(size=40)
    assert permutation_p(values, values + 0.3 * rng.normal(size=40)) < 0.01
    assert permutation_p(values, rng.normal(size=40)) > 0.05


def test_precision_and_recall_of_the_first_few():
    named, truth = [["a", "b", "c"], [], ["x"]], [["b", "d"], ["a"], ["x"]]
    np.testing.assert_allclose(precision_recall(named, truth, 1), [[0, 0], [0, 0], [1, 1]])
    np.testing.assert_allclose(precision_recall(named, truth, 2), [[0.5, 0.5], [0, 0], [1, 1]])
    np.testing.assert_allclose(precision_recall(named, truth, 5), [[1 / 3, 0.5], [0, 0], [1, 1]])


def test_the_majority_guess_is_by_frequency_then_name():
    assert majority_guess([["b", "a"], ["b"], ["c", "a"], ["b"]], 2) == ["b", "a"]
    assert majority_guess([["b"], ["a"]], 5) == ["a", "b"]


def test_an_interval_holds_the_mean_and_is_the_same_each_time():
    rows = np.random.default_rng(3).normal(5, 1, 200)
    low, high = interval(rows)
    assert low < rows.mean() < high and high - low == pytest.approx(4 / np.sqrt(200), rel=0.2)
    assert interval(rows) == [low, high]
