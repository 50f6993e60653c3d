"""Curves to look at, as rows of numbers: whichever class is missing, its curve has no rows."""

from collections.abc import Callable

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from models.metrics import Floats, Labels, both_classes, calibration

POINTS = 200
Curve = list[tuple[float, ...]]


def roc(labels: Labels, probabilities: Floats) -> Curve:
    """(FPR, TPR) by falling threshold."""
    if not both_classes(labels):
        return []
    fpr, tpr, _ = roc_curve(labels, probabilities)
    return thinned(fpr, tpr)


def precision_recall(labels: Labels, probabilities: Floats) -> Curve:
    """(recall, precision) at finding liked places, by falling threshold."""
    if not both_classes(labels):
        return []
    precision, recall, _ = precision_recall_curve(labels, probabilities)
    return thinned(recall[::-1], precision[::-1])


def precision_recall_negative(labels: Labels, probabilities: Floats) -> Curve:
    """(recall, precision) at finding disliked places, the rare class."""
    return precision_recall(1 - labels, 1 - probabilities)


def calibrated(labels: Labels, probabilities: Floats) -> Curve:
    """(mean probability, share liked, rows) of each nonempty bin."""
    return [tuple(bin_) for bin_ in calibration(labels, probabilities)]


def thinned(x: Floats, y: Floats) -> Curve:
    """At most `POINTS` of the points, both ends among them: no eye sees more, and the file stays small."""
    kept = np.unique(np.linspace(0, len(x) - 1, POINTS).round().astype(np.int64))
    return list(zip(x[kept].tolist(), y[kept].tolist(), strict=True))


CURVES: dict[str, tuple[tuple[str, ...], Callable[[Labels, Floats], Curve]]] = {
    "roc": (("false_positive_rate", "true_positive_rate"), roc),
    "precision_recall": (("recall", "precision"), precision_recall),
    "precision_recall_negative": (("recall", "precision"), precision_recall_negative),
    "calibration": (("mean_probability", "share_liked", "rows"), calibrated),
}
