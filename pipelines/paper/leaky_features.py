"""QUARANTINED: histories that hold the review to be predicted. Nothing outside `leak` is ever trained on them.

They exist to show what a leak is worth, and what a pipeline that leaked unnoticed would look like. `tests/paper`
asserts that no module but `pipelines.paper.leak` imports this one. The sums are `visibility`'s own integer sums; what
they are taken over is the one thing that is wrong:

- `point_in_time`: the entity's reviews *up to and with* the review's instant, what an ASOF join at t gives that was
  not asked for one microsecond earlier.
- `leave_one_out`: the entity's training reviews *without subtraction*, and for a validation or test review its own pair
  on top.

Numbers and mean text embeddings alone: summaries, tags and photos are not remade.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from pipelines.core.feature_rows import ENTITIES
from pipelines.core.params import Protocol
from pipelines.core.review_vectors import Vectors
from pipelines.core.visibility import (
    RATING_UNIT,
    TREND_INSTANTS,
    Entity,
    Ints,
    RunningRows,
    key_of,
    mean_of,
    running_rows,
    sums_by,
    sums_over_time,
)

COLUMNS_AT_ONCE = 32  # of the embeddings: sums of a million reviews are then 256 MB
Summing = Callable[[Ints], Ints]  # values (N, D) of the reviews -> the sums (N, D) that each review sees


def with_own_review(members: pd.DataFrame, text: Vectors, protocol: Protocol) -> dict[str, np.ndarray]:
    """A training set's history and text columns, a row per member, each with its own review in it.

    `members` (N rows): review_id, user_id, business_id, rating, event_timestamp, split; `text`: vectors of them.
    Column -> (N,), embeddings (N, D) float32 with rows of NaN where no review that is seen has words.
    """
    columns: dict[str, np.ndarray] = {}
    for entity in ENTITIES:
        sees = over_time(members, entity) if protocol == "point_in_time" else of_train(members, entity)
        numbers = numbers_of(sees(rating_powers(members)))
        timed = protocol == "point_in_time"
        trend = trend_of(members, entity, numbers["rating_mean"]) if timed else np.full(len(members), np.nan)
        # The newest review that is seen is the review itself: its recency is below a second, always.
        newest = instants_of(members).astype("datetime64[s]").astype("datetime64[us]")
        if not timed:
            newest = np.full(len(members), np.datetime64("NaT", "us"))
        made = numbers | {"rating_trend": trend, "newest_review_at": newest}
        columns |= {f"{entity}_history__{name}": values for name, values in made.items()}
        columns[f"{entity}_text__embedding"] = means_of(text, len(members), sees)
    return columns


def over_time(members: pd.DataFrame, entity: Entity) -> Summing:
    """Sums up to and with each review's instant."""
    rows, row_of = rows_of(members, entity)
    return lambda values: sums_over_time(values, rows)[row_of]


def of_train(members: pd.DataFrame, entity: Entity) -> Summing:
    """Sums over the entity's training reviews, and over the own pair where that is not among them."""
    key, _ = pd.factorize(members[key_of(entity)])
    pair, _ = pd.factorize(pd.MultiIndex.from_frame(members[["user_id", "business_id"]]))
    train = (members["split"] == "train").to_numpy()

    def sums(values: Ints) -> Ints:
        totals = sums_by(key[train], values[train], int(key.max(initial=-1)) + 1)
        own = sums_by(pair[~train], values[~train], int(pair.max(initial=-1)) + 1)
        return totals[key] + own[pair]  # a pair lies whole in one split: of a training pair `own` is 0

    return sums


def rows_of(members: pd.DataFrame, entity: Entity) -> tuple[RunningRows, Ints]:
    """A row per entity and instant, and which of them each review (N,) is in."""
    key, _ = pd.factorize(members[key_of(entity)])
    rows = running_rows(key, instants_of(members).view(np.int64))
    row_of = np.empty(len(members), np.int64)
    row_of[rows.order] = np.searchsorted(rows.stop, np.arange(len(members)), side="right")
    return rows, row_of


def instants_of(members: pd.DataFrame) -> np.ndarray:
    """(N,) datetime64[us], UTC."""
    return members["event_timestamp"].to_numpy("datetime64[us]")


def rating_powers(members: pd.DataFrame) -> Ints:
    """(N, 3): 1, the rating in hundredths of a star, and its square."""
    rating = np.floor(members["rating"].to_numpy(np.float64) * RATING_UNIT + 0.5).astype(np.int64)
    return np.stack([np.ones_like(rating), rating, rating * rating], axis=1)


def numbers_of(sums: Ints) -> dict[str, np.ndarray]:
    """Count, mean and population standard deviation from sums (N, 3) of `rating_powers`. No count is 0 here."""
    n, s, ss = sums.T
    scale = (n * RATING_UNIT).astype(np.float64)
    return {
        "review_count": n,
        "rating_mean": s / scale,
        "rating_std": np.sqrt((n * ss - s * s).astype(np.float64)) / scale,
    }


def trend_of(members: pd.DataFrame, entity: Entity, mean: np.ndarray) -> np.ndarray:
    """(N,) mean over the entity's newest `TREND_INSTANTS` instants, the review's own among them, less `mean`."""
    rows, row_of = rows_of(members, entity)
    first = np.maximum(rows.start, np.concatenate([np.zeros(TREND_INSTANTS, np.int64), rows.stop])[: len(rows.stop)])
    recent = sums_over_time(rating_powers(members), RunningRows(rows.order, first, rows.stop))[row_of]
    return recent[:, 1] / (recent[:, 0] * RATING_UNIT).astype(np.float64) - mean


def means_of(text: Vectors, reviews: int, sees: Summing) -> np.ndarray:
    """(N, D) float32: the mean of the vectors that each review sees, its own among them; NaN where there is none."""
    everyone = np.arange(reviews)
    width = text.values.shape[1]
    means = np.full((reviews, width), np.nan, np.float32)
    for start in range(0, width, COLUMNS_AT_ONCE):
        block = slice(start, start + COLUMNS_AT_ONCE)
        values, known = Vectors(text.values[:, block], text.owner).sums(everyone)
        counts = sees(known)[:, 0]
        means[:, block] = np.where(counts[:, None] > 0, mean_of(sees(values), counts), np.nan)
    return means
