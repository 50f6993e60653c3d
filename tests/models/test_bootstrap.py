import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import metrics
from models.bootstrap import (
    FIGURES,
    Draws,
    draw_users,
    interval,
    mean_of_drawn_networks,
    replicated,
    replicated_means,
)

OBVIOUS = {
    "auc": metrics.auc,
    "log_loss": metrics.log_loss,
    "pr_auc_negative": metrics.pr_auc_negative,
    "fpr_at_tpr_90": lambda labels, said: metrics.fpr_at_tpr(labels, said, 0.90),
    "fpr_at_tpr_95": lambda labels, said: metrics.fpr_at_tpr(labels, said, 0.95),
}

NO_INTERVAL = {"low": None, "high": None}
Sample = tuple[np.ndarray, np.ndarray, np.ndarray]


def sample(rows: int, users: int, seed: int, levels: int = 20) -> Sample:
    """Labels, probabilities with ties, and whose rows they are."""
    rng = np.random.default_rng(seed)
    said = rng.integers(1, levels, rows) / levels
    return (rng.random(rows) < said).astype(np.int8), said, rng.integers(0, users, rows)


def written_out(rows: Sample, draw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the drawn users, each as often as its user."""
    labels, said, users = rows
    kept = np.repeat(np.arange(len(labels)), draw[users])
    return labels[kept], said[kept]


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 120), st.integers(1, 15), st.sampled_from([2, 20, 10**6]))
def test_a_draw_is_its_rows_written_out(seed: int, rows: int, users: int, levels: int) -> None:
    made, draws = sample(rows, users, seed, levels), draw_users(users, 8, seed)
    figures = replicated(*made, draws)
    assert set(figures) == set(OBVIOUS)
    for name, obvious in OBVIOUS.items():
        expected = [obvious(*written_out(made, draw)) for draw in draws]
        np.testing.assert_allclose(figures[name], np.array(expected, np.float64), rtol=1e-9, err_msg=name)


def test_every_user_once_is_the_figure_itself() -> None:
    labels, said, users = sample(500, 40, 1)
    figures = replicated(labels, said, users, np.ones((1, 40), np.uint8))
    for name, obvious in OBVIOUS.items():
        assert figures[name][0] == pytest.approx(obvious(labels, said)), name


def test_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, draws = sample(200, 30, 2), draw_users(30, 50, 3)
    at_once = replicated(*made, draws)
    monkeypatch.setattr("models.bootstrap.CELLS", 1400)
    for name, values in replicated(*made, draws).items():
        np.testing.assert_allclose(values, at_once[name], rtol=1e-12)


def test_no_rows_and_one_class_have_no_figure() -> None:
    draws = draw_users(3, 5, 0)
    none = np.zeros(0)
    for values in replicated(none.astype(np.int8), none, none.astype(np.int64), draws).values():
        assert np.isnan(values).all() and interval(values) == NO_INTERVAL
    liked = replicated(np.ones(3, np.int8), np.array([0.2, 0.5, 0.5]), np.arange(3), draws)
    assert {name for name, values in liked.items() if np.isnan(values).all()} == set(FIGURES) - {"log_loss"}


def test_draws_are_seeded_and_have_all_users() -> None:
    draws = draw_users(300, 2000, 5)
    assert (draws == draw_users(300, 2000, 5)).all() and (draws != draw_users(300, 2000, 6)).any()
    assert (draws.sum(axis=1) == 300).all()
    assert draws.mean(axis=0) == pytest.approx(np.ones(300), abs=0.12)
    assert draws.astype(float).var() == pytest.approx(1 - 1 / 300, rel=0.02)


def test_interval() -> None:
    values = np.arange(1001.0)
    assert interval(values) == pytest.approx({"low": 25.0, "high": 975.0})
    assert interval(values, 0.5) == pytest.approx({"low": 250.0, "high": 750.0})
    assert interval(np.where(values < 20, np.nan, values))["low"] is not None
    assert interval(np.where(values < 100, np.nan, values)) == NO_INTERVAL


def test_means_of_drawn_users() -> None:
    values, draws = np.array([1.0, 2.0, 4.0]), np.array([[1, 1, 1], [3, 0, 0], [0, 1, 2]], np.uint8)
    assert replicated_means(values, draws).tolist() == pytest.approx([7 / 3, 1.0, 10 / 3])


@pytest.mark.parametrize("networks", [2, 3, 10])
def test_the_mean_of_drawn_networks_varies_as_that_of_networks_does(networks: int) -> None:
    rng = np.random.default_rng(networks)
    figures = rng.normal(0.8, 0.01, networks)
    drawn = mean_of_drawn_networks(np.repeat(figures[:, None], 200_000, axis=1), rng)
    assert drawn.mean() == pytest.approx(figures.mean(), abs=1e-4)
    assert drawn.std() == pytest.approx(figures.std(ddof=1) / np.sqrt(networks), rel=0.02)


def test_networks_are_drawn_within_their_replicate() -> None:
    alone = np.arange(5.0)[None]
    assert mean_of_drawn_networks(alone, np.random.default_rng(0)).tolist() == alone[0].tolist()
    both = np.stack([np.arange(100.0), np.arange(100.0) + 1000])
    assert (mean_of_drawn_networks(both, np.random.default_rng(0)) % 1000 == np.arange(100)).all()


def clustered(users: int, rng: np.random.Generator) -> Sample:
    """Ten rows a user; a user's taste moves all their labels, their level of score all their scores."""
    taste, level = rng.normal(0, 1.5, users), rng.normal(0, 1.5, users)
    owner = np.repeat(np.arange(users), 10)
    labels = rng.random(len(owner)) < 1 / (1 + np.exp(-1 - taste[owner]))
    scores = 0.6 * labels + level[owner] + rng.normal(0, 0.5, len(owner))
    return labels.astype(np.int8), 1 / (1 + np.exp(-scores)), owner


def covered(truth: float, resampled: str) -> float:
    """Share of 200 worlds of 80 users whose interval of the AUC holds the truth."""
    rng = np.random.default_rng(11)
    hits = 0
    for world in range(200):
        labels, said, owner = clustered(80, rng)
        whose = owner if resampled == "users" else np.arange(len(owner))
        found = interval(replicated(labels, said, whose, draw_users(whose[-1] + 1, 300, world), ["auc"])["auc"])
        hits += found["low"] <= truth <= found["high"]
    return hits / 200


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """And that of rows drawn alone does not, which is why users are drawn. 95 % of 200: 0.92 to 0.98."""
    labels, said, _ = clustered(200_000, np.random.default_rng(12))
    truth = metrics.auc(labels, said)
    assert truth is not None
    assert 0.90 <= covered(truth, "users") <= 0.99
    assert covered(truth, "rows") < 0.80


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    labels, said, users = sample(2000, 200, 7, levels=1000)
    other = np.clip(said + np.random.default_rng(8).normal(0, 0.02, len(said)), 0.001, 0.999)
    draws: Draws = draw_users(200, 400, 9)
    a, b = (replicated(labels, some, users, draws, ["auc"])["auc"] for some in (said, other))
    apart, paired = interval(a), interval(a - b)
    assert paired["high"] - paired["low"] < 0.3 * (apart["high"] - apart["low"])


def test_it_is_fast() -> None:
    """2,000 replicates of 20,000 rows take 2.4 s where nobody else computes; here a tenth of them."""
    made, draws = sample(20_000, 8_000, 3, levels=10**6), draw_users(8_000, 200, 1)
    began = time.perf_counter()
    replicated(*made, draws)
    assert time.perf_counter() - began < 4.0
