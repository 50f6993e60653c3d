import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from models import curves
from models.metrics import ece, figures, fpr_at_tpr, log_loss, report, threshold_at_tpr

KEYS = {
    "auc", "accuracy", "fpr", "tpr", "threshold", "fpr_at_tpr_90", "fpr_at_tpr_95", "pr_auc_negative", "log_loss",
    "ece", "n",
}  # fmt: skip


def sample(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities with ties."""
    rng = np.random.default_rng(seed)
    probabilities = rng.integers(1, 20, rows) / 20
    return (rng.random(rows) < probabilities).astype(np.int8), probabilities


@given(st.integers(0, 1000), st.integers(20, 200))
def test_agrees_with_scikit_learn(seed: int, rows: int) -> None:
    labels, probabilities = sample(rows, seed)
    labels[:2] = 0, 1
    threshold = threshold_at_tpr(labels, probabilities)
    said = figures(labels, probabilities, threshold)
    decided = probabilities >= threshold
    negatives, positives = sk.confusion_matrix(labels, decided)
    assert said["auc"] == sk.roc_auc_score(labels, probabilities)
    assert said["accuracy"] == pytest.approx(sk.accuracy_score(labels, decided))
    assert said["fpr"] == negatives[1] / negatives.sum()
    assert said["tpr"] == positives[1] / positives.sum()
    assert said["pr_auc_negative"] == pytest.approx(sk.average_precision_score(1 - labels, 1 - probabilities))
    assert said["log_loss"] == pytest.approx(sk.log_loss(labels, probabilities))
    fpr, tpr, _ = sk.roc_curve(labels, probabilities, drop_intermediate=False)
    assert said["fpr_at_tpr_90"] == pytest.approx(fpr[tpr >= 0.9 - 1e-12].min())


@given(st.integers(0, 1000), st.integers(1, 100))
def test_the_threshold_is_the_highest_that_reaches_the_target(seed: int, rows: int) -> None:
    labels, probabilities = sample(rows, seed)
    labels[0] = 1
    threshold = threshold_at_tpr(labels, probabilities)
    liked = probabilities[labels == 1]
    assert (liked >= threshold).mean() >= 0.9 - 1e-12
    assert (liked > threshold).mean() < 0.9


@pytest.mark.parametrize(
    ("labels", "probabilities", "expected"),
    [
        ([1, 0], [1.0, 0.0], 0.0),
        ([1, 0], [0.75, 0.25], 0.25),
        ([1, 1, 0, 0], [0.5, 0.5, 0.5, 0.5], 0.0),
        # bins 0.2..0.3 (said 0.25, liked 0) and 0.9..1 (said 0.95, liked 2/3)
        ([0, 1, 1, 0], [0.25, 0.95, 0.95, 0.95], (0.25 * 1 + (0.95 - 2 / 3) * 3) / 4),
    ],
)
def test_ece_by_hand(labels: list[int], probabilities: list[float], expected: float) -> None:
    assert ece(np.array(labels, np.int8), np.array(probabilities)) == pytest.approx(expected)


def test_a_certain_mistake_costs_much_but_not_infinitely() -> None:
    assert 30 < (log_loss(np.array([1], np.int8), np.array([0.0])) or 0) < 40


def test_null_where_a_figure_has_no_meaning() -> None:
    labels, probabilities = np.ones(3, np.int8), np.array([0.2, 0.5, 0.9])
    said = figures(labels, probabilities, 0.5)
    assert {key for key, value in said.items() if value is None} == {
        "auc",
        "fpr",
        "fpr_at_tpr_90",
        "fpr_at_tpr_95",
        "pr_auc_negative",
    }
    said = figures(1 - labels, probabilities, None)
    assert {key for key, value in said.items() if value is not None} == {"log_loss", "ece", "n"}
    assert threshold_at_tpr(1 - labels, probabilities) is None
    assert fpr_at_tpr(1 - labels, probabilities, 0.9) is None


def test_no_warm_rows() -> None:
    labels, probabilities = sample(30, 1)
    said = report(labels, probabilities, 0.5, np.zeros(30, np.bool_))
    assert set(said) == KEYS | {"warm", "cold"}
    assert said["warm"] == dict.fromkeys(KEYS) | {"threshold": 0.5, "n": 0}
    assert said["cold"] == {key: said[key] for key in KEYS}


def test_curves() -> None:
    labels, probabilities = sample(1000, 2)
    area = np.array(curves.roc(labels, probabilities))
    assert np.trapezoid(area[:, 1], area[:, 0]) == pytest.approx(sk.roc_auc_score(labels, probabilities), abs=0.01)
    assert (area[0].tolist(), area[-1].tolist()) == ([0, 0], [1, 1])
    negative = curves.precision_recall_negative(labels, probabilities)
    assert negative == curves.precision_recall(1 - labels, 1 - probabilities)
    assert negative[-1] == (1.0, pytest.approx((labels == 0).mean()))
    assert sum(rows for _, _, rows in curves.calibrated(labels, probabilities)) == 1000
    many = np.random.default_rng(0).random(5000)
    assert len(curves.roc((many > 0.5).astype(np.int8), np.random.default_rng(1).random(5000))) <= curves.POINTS


def test_curves_of_one_class_are_empty() -> None:
    labels, probabilities = np.ones(5, np.int8), np.linspace(0.1, 0.9, 5)
    for name in ("roc", "precision_recall", "precision_recall_negative"):
        assert curves.CURVES[name][1](labels, probabilities) == []
