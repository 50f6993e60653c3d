"""What the histories of a user and of a business say in numbers."""

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np

from models.columns import Columns, Floats, Unencodable

Numbers = Literal["full", "paper"]

ENTITIES = ("user", "business")
PAPER = ("business_count", "user_mean", "business_mean")
FOUR = ("user_count", "user_shrunk_mean", "business_count", "business_shrunk_mean")
FULL = ("count", "shrunk_mean", "std", "trend", "recency", "is_known")
HISTORY = ("review_count", "rating_mean", "rating_std", "rating_trend", "newest_review_at")
COLUMNS = ("event_timestamp", *(f"{entity}_history__{name}" for entity in ENTITIES for name in HISTORY))
# Reviews that the prior is worth: on Zomato the floor's AUC moves by 0.002 between 1 and 10.
PRIOR_REVIEWS = 5.0
MICROSECONDS_A_DAY = 86_400_000_000


def history_numbers(columns: Columns, priors: Mapping[str, float]) -> dict[str, Floats]:
    """Name -> (N,), NaN where the history does not say. Reads `COLUMNS`.

    Counts as log(1 + n); `shrunk_mean` pulled towards the train mean as if by `PRIOR_REVIEWS` reviews; `recency` as
    log(1 + days) from the newest visible review to the row's instant.

    Unencodable where a visible review is later still.
    """
    numbers: dict[str, Floats] = {}
    for entity in ENTITIES:
        history = f"{entity}_history__"
        count = columns[f"{history}review_count"].astype(np.float64)
        mean = columns[f"{history}rating_mean"].astype(np.float64)
        known = np.where(count > 0, mean, 0.0)
        numbers[f"{entity}_count"] = np.log1p(count)
        numbers[f"{entity}_mean"] = mean
        numbers[f"{entity}_shrunk_mean"] = (count * known + PRIOR_REVIEWS * priors[entity]) / (count + PRIOR_REVIEWS)
        numbers[f"{entity}_std"] = columns[f"{history}rating_std"].astype(np.float64)
        numbers[f"{entity}_trend"] = columns[f"{history}rating_trend"].astype(np.float64)
        numbers[f"{entity}_recency"] = recency(columns[f"{history}newest_review_at"], columns["event_timestamp"])
        numbers[f"{entity}_is_known"] = (count > 0).astype(np.float64)
    return numbers


def recency(newest: np.ndarray, instant: np.ndarray) -> Floats:
    """log(1 + days) between two columns of instants, NaN where either is null."""
    known = ~(np.isnat(newest) | np.isnat(instant))
    days = np.full(len(newest), np.nan)
    days[known] = (instant[known] - newest[known]).astype("timedelta64[us]").astype(np.int64) / MICROSECONDS_A_DAY
    if (days[known] < 0).any():
        row = int(np.flatnonzero(known)[np.argmin(days[known])])
        raise Unencodable(
            f"row {row}: the newest visible review, {newest[row]}, is after the row's instant {instant[row]}"
        )
    return np.log1p(days)


def used_numbers(numbers: Numbers, texts: Collection[str] = ENTITIES) -> tuple[str, ...]:
    """The dense columns: the paper's three, or all (a plain mean says nothing beside the shrunk one).

    `texts`: the entities of which it is known whether there is any text.
    """
    if numbers == "paper":
        return PAPER
    return tuple(
        f"{entity}_{kind}" for entity in ENTITIES for kind in (*FULL, *(["has_text"] if entity in texts else []))
    )
