"""How good probabilities are. Where a figure has no meaning it is None (null in JSON), never NaN."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

Labels = NDArray[np.int8]
Floats = NDArray[np.float64]

TARGET_TPR = 0.90
HIGH_TPR = 0.95
BINS = 10


def report(
    labels: Labels,
    probabilities: Floats,
    threshold: float | None,
    warm: NDArray[np.bool_],
    cut: float | None = None,
) -> dict[str, Any]:
    """`figures` of all rows, and under `warm` and `cold` of those with and without both histories."""
    return figures(labels, probabilities, threshold, cut) | {
        "warm": figures(labels[warm], probabilities[warm], threshold, cut),
        "cold": figures(labels[~warm], probabilities[~warm], threshold, cut),
    }


def figures(
    labels: Labels, probabilities: Floats, threshold: float | None, cut: float | None = None
) -> dict[str, float | int | None]:
    """The eleven figures of (N,) labels (1: liked) and probabilities. `threshold`: one for every split.

    `cut`: where these probabilities are cut, if not at `threshold`, because that one is of a network's own output,
    before what class weights shift is shifted back.
    """
    cut = threshold if cut is None else cut
    return {
        "auc": auc(labels, probabilities),
        "accuracy": accuracy(labels, probabilities, cut),
        "fpr": share_above(probabilities[labels == 0], cut),
        "tpr": share_above(probabilities[labels == 1], cut),
        "threshold": threshold,
        "fpr_at_tpr_90": fpr_at_tpr(labels, probabilities, TARGET_TPR),
        "fpr_at_tpr_95": fpr_at_tpr(labels, probabilities, HIGH_TPR),
        "pr_auc_negative": pr_auc_negative(labels, probabilities),
        "log_loss": log_loss(labels, probabilities),
        "ece": ece(labels, probabilities),
        "n": len(labels),
    }


def both_classes(labels: Labels) -> bool:
    return bool((labels == 1).any() and (labels == 0).any())


def auc(labels: Labels, probabilities: Floats) -> float | None:
    """Chance that a liked place ranks above a disliked one: ranking alone, whatever threshold or calibration."""
    return float(roc_auc_score(labels, probabilities)) if both_classes(labels) else None


def accuracy(labels: Labels, probabilities: Floats, threshold: float | None) -> float | None:
    """Share of right decisions. The paper reports it; with 11.5 % negatives it flatters whoever says yes to all."""
    if threshold is None or not len(labels):
        return None
    return float(((probabilities >= threshold) == (labels == 1)).mean())


def share_above(probabilities: Floats, threshold: float | None) -> float | None:
    """Share that would be recommended: of negatives FPR, FP / (FP + TN), the paper's yardstick; of positives TPR."""
    if threshold is None or not len(probabilities):
        return None
    return float((probabilities >= threshold).mean())


def threshold_at_tpr(labels: Labels, probabilities: Floats, target: float = TARGET_TPR) -> float | None:
    """The highest threshold that still recommends `target` of the liked places; None without any."""
    liked = np.sort(probabilities[labels == 1])[::-1]
    if not len(liked):
        return None
    # The small slack: 0.9 of 10 rows is 9 rows, not the 10 that ceil(9.000000000000002) would say.
    return float(liked[max(int(np.ceil(target * len(liked) - 1e-9)), 1) - 1])


def fpr_at_tpr(labels: Labels, probabilities: Floats, target: float) -> float | None:
    """FPR where TPR first reaches `target` on these very rows: no moved threshold betters it, only ranking can."""
    if not both_classes(labels):
        return None
    return share_above(probabilities[labels == 0], threshold_at_tpr(labels, probabilities, target))


def pr_auc_negative(labels: Labels, probabilities: Floats) -> float | None:
    """Average precision at finding disliked places: they are the rare class, and what a bad recommendation is."""
    return float(average_precision_score(labels == 0, -probabilities)) if both_classes(labels) else None


def log_loss(labels: Labels, probabilities: Floats) -> float | None:
    """Mean cross-entropy in nats, unweighted: ranking and calibration at once; the epoch is chosen by it."""
    if not len(labels):
        return None
    of_label = np.where(labels == 1, probabilities, 1 - probabilities)
    return float(-np.log(np.clip(of_label, np.finfo(np.float64).eps, None)).mean())


def calibration(labels: Labels, probabilities: Floats) -> list[tuple[float, float, int]]:
    """Mean probability, share liked and number of rows, of each nonempty one of ten bins of equal width."""
    bins = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    said = np.bincount(bins, weights=probabilities, minlength=BINS)
    liked = np.bincount(bins, weights=labels, minlength=BINS)
    return [(float(said[i] / counts[i]), float(liked[i] / counts[i]), int(counts[i])) for i in range(BINS) if counts[i]]


def ece(labels: Labels, probabilities: Floats) -> float | None:
    """Expected calibration error: by how much a stated probability is off, on average. Weights and dropout move it."""
    if not len(labels):
        return None
    return sum(abs(said - liked) * count for said, liked, count in calibration(labels, probabilities)) / len(labels)
