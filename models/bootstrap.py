"""Intervals of figures and of their differences: the bootstrap over users, since one user's rows depend on each other.

Users are drawn with replacement, each with all their rows (Field and Welsh, 2007). A draw is the weights that it gives
to rows: nothing is copied, and rows are sorted once. Nothing is trained anew either: an interval says how the figure of
these very predictions would differ among other users; how seeds differ is to be said beside it, or drawn too
(`mean_of_drawn_networks`).

Letters: N rows, U users, R replicates, D distinct probabilities that a disliked place has.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.metrics import Labels

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Draws = NDArray[np.uint8]
"""(R, U): how often each user was drawn; that one is drawn over 255 times does not happen."""
Interval = dict[str, float | None]
"""`low` and `high`."""

CELLS = 1 << 20  # replicates times rows at once: 8 MB an array
LEAST_DEFINED = 0.95  # of the replicates: an interval of fewer would leave out the hard ones


def draw_users(users: int, replicates: int, seed: int) -> Draws:
    """(R, U): as many users as there are, with replacement, R times. What is compared, shares its draws."""
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(0, users, users) for _ in range(replicates))
    return np.stack([np.bincount(some, minlength=users).astype(np.uint8) for some in drawn])


def replicated(
    labels: Labels, probabilities: Floats, users: Ints, draws: Draws, figures: Sequence[str] | None = None
) -> dict[str, Floats]:
    """Figure -> (R,) its value in each draw, NaN where the draw lacks a class; all of `FIGURES` unless some are named.

    `users` (N,) are columns of `draws`. Each value is that of `models.metrics` over the drawn rows written out.
    """
    names = list(FIGURES) if figures is None else list(figures)
    made = {name: np.full(len(draws), np.nan) for name in names}
    if len(labels):
        rows = _SortedRows(labels, probabilities, users)
        for part in _parts(len(draws), len(labels)):
            sums = rows.weighted(draws[part])
            with np.errstate(divide="ignore", invalid="ignore"):  # a draw without a class: 0 / 0
                for name in names:
                    made[name][part] = FIGURES[name](sums)
    return made


def replicated_means(values: Floats, draws: Draws) -> Floats:
    """(R,) means over drawn users of values (U,), one a user."""
    counts = draws.astype(np.float64)
    return counts @ values / counts.sum(axis=1)


def mean_of_drawn_networks(values: Floats, rng: np.random.Generator) -> Floats:
    """(R,) means of a figure (M, R) over networks drawn anew in each replicate: M - 1 of the M, with replacement.

    One less, since then the mean varies as much as that of M networks does (Rao and Wu, 1988); M drawn of so few would
    vary too little. A single network says nothing of how others would differ, and is taken as it is.
    """
    members, replicates = values.shape
    chosen = rng.integers(0, members, (max(members - 1, 1), replicates))
    return np.take_along_axis(values, chosen, axis=0).mean(axis=0)


def interval(values: Floats, level: float = 0.95) -> Interval:
    """The percentile interval of (R,) replicates; its ends are None where over one in twenty has no value."""
    known = values[~np.isnan(values)]
    if not len(known) or len(known) < LEAST_DEFINED * len(values):
        return {"low": None, "high": None}
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return {"low": float(low), "high": float(high)}


def _parts(replicates: int, rows: int) -> Iterator[slice]:
    step = max(CELLS // rows, 1)
    for start in range(0, replicates, step):
        yield slice(start, start + step)


@dataclass(frozen=True)
class _Sums:
    """Weights of the first 0, 1, ... N rows, the highest probability first, (R, N + 1); of liked ones, and of all."""

    liked: Floats
    every: Floats
    begins: Ints  # (D,) rows before those of such a probability
    ends: Ints  # (D,) and with them
    end_of_row: Ints  # (N,) rows up to the last of the same probability
    losses: Floats  # (R,)

    def disliked(self, rows: Ints) -> Floats:
        return self.every[:, rows] - self.liked[:, rows]

    @property
    def all_liked(self) -> Floats:
        return self.liked[:, -1]

    @property
    def all_disliked(self) -> Floats:
        return self.every[:, -1] - self.liked[:, -1]


class _SortedRows:
    def __init__(self, labels: Labels, probabilities: Floats, users: Ints) -> None:
        order = np.argsort(-probabilities, kind="stable")
        said, is_liked = probabilities[order], labels[order] == 1
        last = np.append(np.flatnonzero(np.diff(said)), len(said) - 1)
        run = np.searchsorted(last, np.arange(len(said)))
        with_disliked = np.unique(run[~is_liked])
        self.begins, self.ends = np.append(0, last + 1)[with_disliked], last[with_disliked] + 1
        self.end_of_row = last[run] + 1
        self.users = users[order]
        self.is_liked = is_liked.astype(np.float64)
        self.losses = -np.log(np.clip(np.where(is_liked, said, 1 - said), np.finfo(np.float64).eps, None))

    def weighted(self, draws: Draws) -> _Sums:
        weights = draws[:, self.users].astype(np.float64)
        liked, every = np.zeros((2, len(weights), weights.shape[1] + 1))
        losses = weights @ self.losses
        np.cumsum(weights, axis=1, out=every[:, 1:])
        weights *= self.is_liked
        np.cumsum(weights, axis=1, out=liked[:, 1:])
        return _Sums(liked, every, self.begins, self.ends, self.end_of_row, losses)


def _auc(sums: _Sums) -> Floats:
    """Of each disliked row the liked ones above it, and half of those beside it."""
    here = sums.disliked(sums.ends) - sums.disliked(sums.begins)
    above = (sums.liked[:, sums.begins] + sums.liked[:, sums.ends]) / 2
    return (here * above).sum(axis=1) / (sums.all_liked * sums.all_disliked)


def _pr_auc_negative(sums: _Sums) -> Floats:
    """Average precision of disliked places from the lowest probability on: precision at each, by recall gained."""
    before = sums.disliked(sums.begins)
    here = sums.disliked(sums.ends) - before
    found = sums.all_disliked[:, None] - before
    looked_at = sums.every[:, -1:] - sums.every[:, sums.begins]
    precision = np.divide(found, looked_at, out=np.zeros_like(found), where=looked_at > 0)
    area = (here * precision).sum(axis=1) / sums.all_disliked
    return np.where(sums.all_liked > 0, area, np.nan)


def _fpr_at_tpr(target: float) -> Callable[[_Sums], Floats]:
    def figure(sums: _Sums) -> Floats:
        # The slack is that of metrics.threshold_at_tpr.
        needed = np.maximum(np.ceil(target * sums.all_liked - 1e-9), 1)
        first = [np.searchsorted(liked, need) for liked, need in zip(sums.liked, needed, strict=True)]
        rows = sums.end_of_row[np.minimum(first, len(sums.end_of_row)) - 1]
        at = np.arange(len(rows))
        above = sums.every[at, rows] - sums.liked[at, rows]
        return np.where(sums.all_liked > 0, above / sums.all_disliked, np.nan)

    return figure


def _log_loss(sums: _Sums) -> Floats:
    return sums.losses / sums.every[:, -1]


FIGURES: dict[str, Callable[[_Sums], Floats]] = {
    "auc": _auc,
    "log_loss": _log_loss,
    "pr_auc_negative": _pr_auc_negative,
    "fpr_at_tpr_90": _fpr_at_tpr(0.90),
    "fpr_at_tpr_95": _fpr_at_tpr(0.95),
}
