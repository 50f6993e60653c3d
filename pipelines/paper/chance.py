"""What luck of the rows alone does to a figure: to an AUC of scores that know nothing, to an FPR at a given TPR."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Draws = NDArray[np.uint8]
"""(R, U): how often each unit was drawn."""

COIN = 3  # standard deviations: so many, as there are many lines
CELLS = 1 << 20  # replicates times rows at once: 8 MB an array


def coin(counts: Sequence[int], repeats: int) -> float | None:
    """How far from 0.5 the mean AUC of scores that know nothing may be; None where a class has no row.

    `counts`: disliked and liked rows, m and n; `repeats`: permutations k, each with labels of its own.
    3 sqrt((m + n + 1) / (12 m n k)): of the Mann-Whitney statistic without ties.
    """
    m, n = counts
    return float(COIN * ((m + n + 1) / (12 * m * n * repeats)) ** 0.5) if m and n and repeats else None


def no_coin(mean_auc: float | None, width: float | None) -> bool:
    """Whether luck does not explain a control's AUC, to whichever side of 0.5; unknown is no verdict."""
    return mean_auc is not None and width is not None and abs(mean_auc - 0.5) > width


def redrawn_fpr(labels: NDArray[np.int8], scores: Floats, units: NDArray[np.int64], draws: Draws, tpr: float) -> Floats:
    """(R,) FPR of N rows where TPR on the same drawn rows first reaches `tpr`; NaN where a draw lacks a class.

    `units` (N,): whose row each is, a column of `draws`. A draw's liked rows set its threshold anew, as
    `models.metrics.fpr_at_tpr` over the drawn rows written out does.
    """
    made = np.full(len(draws), np.nan)
    order = np.argsort(-scores, kind="stable")
    liked, disliked = (order[labels[order] == label] for label in (1, 0))
    if not len(liked) or not len(disliked):
        return made
    # Of each liked row's score taken as the threshold: how many disliked rows, of the sorted, are at or above it.
    above = np.searchsorted(-scores[disliked], -scores[liked], side="right")
    step = max(CELLS // len(labels), 1)
    for part in (slice(start, start + step) for start in range(0, len(draws), step)):
        ups, downs = (np.cumsum(draws[part][:, units[rows]], axis=1, dtype=np.int64) for rows in (liked, disliked))
        needed = np.maximum(np.ceil(tpr * ups[:, -1] - 1e-9), 1)  # the slack is that of metrics.threshold_at_tpr
        threshold = above[np.argmax(ups >= needed[:, None], axis=1)]
        at_or_above = np.concatenate([np.zeros((len(downs), 1), np.int64), downs], axis=1)
        known = (ups[:, -1] > 0) & (downs[:, -1] > 0)
        found = at_or_above[np.arange(len(downs)), threshold] / np.maximum(downs[:, -1], 1)
        made[part] = np.where(known, found, np.nan)
    return made
