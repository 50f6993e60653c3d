"""What a review may see: the one place that says which reviews a feature is made of.

A training example is a review r = (user u, business b, instant t).

- `point_in_time`: r sees the reviews of u (of b) with an instant strictly before t. Reviews at one instant see
  nothing of each other.
- `leave_one_out` (the paper's section 5.2): r sees the *training* reviews of u and of b without its own pair (u, b),
  or, softer, without its own fold of pairs. A validation or test review sees every training review.

Numbers are written as Ibis expressions, so that any engine may run them; vectors as running sums over sorted rows.
What a language model is shown is a *snapshot* of a history, since its answer cannot be subtracted from: by time a cut
when the history has grown by a factor, under leave_one_out what is left when a fold of pairs is taken out.
Ratings and vectors are quantised to integers first: a total minus one's own is then exactly what it would have been
without one's own, which no floating-point total is (its rounding remembers every term).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt

Entity = Literal["user", "business"]
LeaveOut = Literal["pair", "fold"]

RATING_UNIT = 100  # a rating is summed in hundredths of a star
VECTOR_UNIT = 2**24  # a unit vector's component in float32 steps; 2**39 of them fit an int64 sum
TREND_INSTANTS = 10

# The newest instant that a review at t may see is t minus one microsecond, the resolution of every instant here: Feast
# joins rows with an instant at or before the one asked for, and a row holds the reviews up to and with its instant.
RESOLUTION = timedelta(microseconds=1)

Ints = npt.NDArray[np.int64]


def key_of(entity: Entity) -> str:
    return f"{entity}_id"


# --- numbers ---------------------------------------------------------------------------------------------------------


def _sums(reviews: ir.Table) -> dict[str, ir.Value]:
    rating = (reviews.rating.cast("float64") * RATING_UNIT).round().cast("int64")
    return {
        "n": reviews.count().cast("int64"),
        "s": rating.sum().cast("int64"),
        "ss": (rating * rating).sum().cast("int64"),
    }


def _numbers(n: ir.Value, s: ir.Value, ss: ir.Value) -> dict[str, ir.Value]:
    """Count, mean and population standard deviation from exact integer sums; null where n is 0."""
    scale = (n * RATING_UNIT).nullif(0).cast("float64")
    return {
        "review_count": n,
        "rating_mean": s.cast("float64") / scale,
        "rating_std": (n * ss - s * s).cast("float64").sqrt() / scale,
    }


def numbers_over_time(reviews: ir.Table, entity: Entity) -> ir.Table:
    """Point-in-time feature rows: one per entity and instant, of its reviews up to and including that instant.

    `reviews` has user_id, business_id, rating, event_timestamp. Reviews are summed per instant first, so that ties
    enter together and the window's frame counts rows. `newest_review_at` is in whole seconds: online, Feast keeps no
    more, and what is served is what was learned from. `rating_trend` is the mean over the entity's newest
    `TREND_INSTANTS` instants less the mean over all of them.
    """
    key = key_of(entity)
    instants = reviews.group_by(key, "event_timestamp").aggregate(**_sums(reviews))
    so_far = ibis.window(group_by=key, order_by="event_timestamp", preceding=None, following=0)
    recent = ibis.window(group_by=key, order_by="event_timestamp", preceding=TREND_INSTANTS - 1, following=0)
    running = instants.select(
        key,
        "event_timestamp",
        **{name: instants[name].sum().over(so_far).cast("int64") for name in ("n", "s", "ss")},
        **{f"recent_{name}": instants[name].sum().over(recent).cast("int64") for name in ("n", "s")},
    )
    numbers = _numbers(running.n, running.s, running.ss)
    recent_mean = running.recent_s.cast("float64") / (running.recent_n * RATING_UNIT).cast("float64")
    return running.select(
        key,
        "event_timestamp",
        **numbers,
        rating_trend=recent_mean - numbers["rating_mean"],
        newest_review_at=running.event_timestamp.truncate("s"),
    )


def numbers_of_train(reviews: ir.Table, entity: Entity, as_of: datetime) -> ir.Table:
    """Leave-one-out's newest row of each entity: of all its training reviews, stamped `as_of`.

    `reviews` has user_id, business_id, rating, split. The protocol knows no time: trend and newest instant are null.
    """
    key = key_of(entity)
    train = reviews.filter(reviews.split == "train")
    totals = train.group_by(key).aggregate(**_sums(train))
    return totals.select(key, event_timestamp=_instant(as_of), **_numbers(totals.n, totals.s, totals.ss), **_timeless())


def numbers_left_out(reviews: ir.Table, entity: Entity, leave_out: LeaveOut, as_of: datetime) -> ir.Table:
    """Leave-one-out feature rows, one per review: the entity's training totals less the review's own part.

    `reviews` has review_id, user_id, business_id, rating, split, fold. A training review's own part is its pair
    (or its fold of the entity's training reviews); a validation or test review has none.
    """
    key = key_of(entity)
    part = ["user_id", "business_id"] if leave_out == "pair" else [key, "fold"]
    train = reviews.filter(reviews.split == "train")
    totals = train.group_by(key).aggregate(**_sums(train))
    own = train.group_by(part).aggregate(**{f"own_{name}": value for name, value in _sums(train).items()})
    joined = reviews.left_join(totals, key).left_join(own, part)
    left = joined.select(
        "review_id",
        **{
            name: (
                joined[name].fill_null(0) - ibis.ifelse(joined.split == "train", joined[f"own_{name}"], 0).fill_null(0)
            ).cast("int64")
            for name in ("n", "s", "ss")
        },
    )
    return left.select("review_id", event_timestamp=_instant(as_of), **_numbers(left.n, left.s, left.ss), **_timeless())


def _instant(value: datetime) -> ir.Value:
    return ibis.literal(value, type="timestamp('UTC', 6)")


def _timeless() -> dict[str, ir.Value]:
    return {
        "rating_trend": ibis.null("float64"),
        "newest_review_at": ibis.null("timestamp('UTC', 6)"),
    }


# --- vectors ---------------------------------------------------------------------------------------------------------


def quantise(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Components in [-1, 1], float32 (N, D), to whole numbers of 1 / VECTOR_UNIT."""
    return np.rint(vectors.astype(np.float64) * VECTOR_UNIT).astype(np.int32)


def mean_of(sums: Ints, counts: Ints) -> npt.NDArray[np.float32]:
    """Quantised sums (N, D) over counts (N,) to float32 means (N, D); zeros where the count is 0."""
    denominators = np.maximum(counts, 1).astype(np.float64)[:, None] * VECTOR_UNIT
    return (sums / denominators).astype(np.float32)


@dataclass(frozen=True)
class RunningRows:
    """Which sorted reviews each point-in-time feature row sums: `order[start[i]:stop[i]]` for row i."""

    order: Ints  # reviews sorted by entity and instant
    start: Ints  # (rows,) where the row's entity begins
    stop: Ints  # (rows,) one past the row's newest review, ties included


def running_rows(key: Ints, instant: Ints) -> RunningRows:
    """The rows of `numbers_over_time`, for vectors. `key` (N,) entity codes, `instant` (N,) microseconds."""
    order = np.lexsort((instant, key))
    sorted_key, sorted_instant = key[order], instant[order]
    last_of_instant = np.ones(len(order), dtype=bool)
    last_of_instant[:-1] = (sorted_key[1:] != sorted_key[:-1]) | (sorted_instant[1:] != sorted_instant[:-1])
    stop = np.flatnonzero(last_of_instant) + 1
    start = np.searchsorted(sorted_key, sorted_key[stop - 1], side="left")
    return RunningRows(order, start, stop)


def sums_over_time(vectors: Ints, rows: RunningRows) -> Ints:
    """Quantised vectors (N, D) to the sums (rows, D) that the running rows see."""
    running = np.zeros((len(rows.order) + 1, vectors.shape[1]), dtype=np.int64)
    np.cumsum(vectors[rows.order], axis=0, dtype=np.int64, out=running[1:])
    return running[rows.stop] - running[rows.start]


def sums_by(group: Ints, values: Ints, groups: int) -> Ints:
    """Sums (groups, D) of the quantised `values` (N, D) by `group` codes (N,); a group without rows sums to 0."""
    order = np.argsort(group, kind="stable")
    running = np.zeros((len(order) + 1, values.shape[1]), dtype=np.int64)
    np.cumsum(values[order], axis=0, dtype=np.int64, out=running[1:])
    edges = np.searchsorted(group[order], np.arange(groups + 1))
    return running[edges[1:]] - running[edges[:-1]]


def sums_left_out(key: Ints, part: Ints, is_train: npt.NDArray[np.bool_], vectors: Ints) -> Ints:
    """The sums (N, D) that each review sees under leave_one_out: its entity's training total less its own part.

    `key` codes the entity and `part` the own part (pair or fold) *within the entity*, both 0-based.
    """
    totals = sums_by(key[is_train], vectors[is_train], int(key.max(initial=-1)) + 1)
    own = sums_by(part[is_train], vectors[is_train], int(part.max(initial=-1)) + 1)
    return totals[key] - np.where(is_train[:, None], own[part], 0)


# --- snapshots -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """What one snapshot of an entity's history holds."""

    key: int  # the entity's code
    holds: Ints  # which reviews, in the order in which they are read
    fold: int | None  # leave_one_out: the fold that is left out; None: nothing is


def cuts_over_time(key: Ints, instant: Ints, growth: float) -> list[Cut]:
    """Point-in-time snapshots: an entity's first instant, then whenever its history has grown by `growth`.

    A cut is at the end of an instant, ties whole. A review at t reads the newest one with an instant before t, so each
    is read: by the review that made the next one, or by the present. `key` (N,) codes, `instant` (N,) microseconds.
    """
    rows = running_rows(key, instant)
    made: list[Cut] = []
    entity, held = -1, 0
    for start, stop in zip(rows.start.tolist(), rows.stop.tolist(), strict=True):
        holds = rows.order[start:stop]
        if key[holds[0]] != entity:
            entity, held = int(key[holds[0]]), 0
        if held == 0 or len(holds) >= growth * held:
            made.append(Cut(entity, holds, None))
            held = len(holds)
    return made


def cuts_left_out(key: Ints, fold: Ints, is_train: npt.NDArray[np.bool_]) -> list[Cut]:
    """Leave-one-out snapshots: of each entity all its training reviews, and what is left of them without a fold.

    A training review reads the one without its own fold, every other review and the present the whole; where nothing
    is left there is none. `key` and `fold` (N,).
    """
    train = np.flatnonzero(is_train)
    order = train[np.argsort(key[train], kind="stable")]
    made: list[Cut] = []
    for holds in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
        if not len(holds):
            continue
        entity = int(key[holds[0]])
        made.append(Cut(entity, holds, None))
        for left_out in np.unique(fold[holds]).tolist():
            left = holds[fold[holds] != left_out]
            if len(left):
                made.append(Cut(entity, left, left_out))
    return made
