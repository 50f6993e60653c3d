"""Feature columns to model inputs: the one way, for training, judging and ranking alike.

Columns come under Feast's full names: counts int64 (N,), numbers float64 (N,) with NaN for null, instants
datetime64[us] (N,) with NaT for null, embeddings float32 (N, W) with rows of NaN for null, and `event_timestamp`, the
instant the row is asked at. Whatever is fitted, is fitted on train rows and kept with the weights.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[str, np.ndarray]
Floats = NDArray[np.float64]
Numbers = Literal["full", "paper"]

ENTITIES = ("user", "business")
PAPER = ("business_count", "user_mean", "business_mean")
FOUR = ("user_count", "user_shrunk_mean", "business_count", "business_shrunk_mean")
# Reviews that the prior is worth: on Zomato the floor's AUC moves by 0.002 between 1 and 10.
PRIOR_REVIEWS = 5.0
MICROSECONDS_A_DAY = 86_400_000_000


def history_numbers(columns: Columns, priors: Mapping[str, float]) -> dict[str, Floats]:
    """Name -> (N,), NaN where the history does not say.

    Counts as log(1 + n); `shrunk_mean` pulled towards the train mean as if by `PRIOR_REVIEWS` reviews; `recency` as
    log(1 + days) from the newest visible review to the row's instant. ValueError where a visible review is later still.
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
        numbers[f"{entity}_has_text"] = has_vector(columns[f"{entity}_text__embedding"]).astype(np.float64)
    return numbers


def recency(newest: np.ndarray, instant: np.ndarray) -> Floats:
    """log(1 + days) between two columns of instants, NaN where either is null."""
    known = ~(np.isnat(newest) | np.isnat(instant))
    days = np.full(len(newest), np.nan)
    days[known] = (instant[known] - newest[known]).astype("timedelta64[us]").astype(np.int64) / MICROSECONDS_A_DAY
    if (days[known] < 0).any():
        row = int(np.flatnonzero(known)[np.argmin(days[known])])
        raise ValueError(
            f"row {row}: the newest visible review, {newest[row]}, is after the row's instant {instant[row]}"
        )
    return np.log1p(days)


def has_vector(embedding: np.ndarray) -> NDArray[np.bool_]:
    """(N, W) -> (N,): true where the row is no row of NaN."""
    if embedding.shape[1] == 0:  # no review of the source has a text
        return np.zeros(len(embedding), dtype=np.bool_)
    return ~np.isnan(embedding[:, 0])


def used_numbers(numbers: Numbers) -> tuple[str, ...]:
    """The dense columns: the paper's three, or all (a plain mean says nothing beside the shrunk one)."""
    if numbers == "paper":
        return PAPER
    kinds = ("count", "shrunk_mean", "std", "trend", "recency", "is_known", "has_text")
    return tuple(f"{entity}_{kind}" for entity in ENTITIES for kind in kinds)


@dataclass(frozen=True)
class DenseEncoding:
    """Which numbers, and the train rows' figures that make them comparable.

    `scales` is 0 where train rows held one value or none: such a number has taught nothing, so it always says 0.
    """

    names: tuple[str, ...]
    priors: dict[str, float]
    means: tuple[float, ...]
    scales: tuple[float, ...]

    @classmethod
    def fit(cls, columns: Columns, names: tuple[str, ...]) -> Self:
        """From train rows."""
        priors = {}
        for entity in ENTITIES:
            means = columns[f"{entity}_history__rating_mean"].astype(np.float64)
            known = means[~np.isnan(means)]
            priors[entity] = float(known.mean()) if len(known) else 0.0
        numbers = history_numbers(columns, priors)
        known_of = [numbers[name][~np.isnan(numbers[name])] for name in names]
        centres = tuple(float(known.mean()) if len(known) else 0.0 for known in known_of)
        spreads = (float(known.std()) if len(known) else 0.0 for known in known_of)
        # A constant column's standard deviation is not always 0 in floating point.
        scales = tuple(spread if spread > 1e-9 else 0.0 for spread in spreads)
        return cls(names, priors, centres, scales)

    def encode(self, columns: Columns) -> NDArray[np.float32]:
        """(N, K) float32, finite: standardised, null as the train mean."""
        numbers = history_numbers(columns, self.priors)
        raw = np.stack([numbers[name] for name in self.names], axis=1)
        scales = np.asarray(self.scales)
        scaled = (raw - np.asarray(self.means)) / np.where(scales > 0, scales, np.inf)
        return np.nan_to_num(scaled, nan=0.0).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        return cls(tuple(kept["names"]), dict(kept["priors"]), tuple(kept["means"]), tuple(kept["scales"]))


@dataclass(frozen=True)
class TextEncoding:
    """Mean embeddings, centred and scaled by train rows, and a flag each for having one.

    Centred, because all reviews' means share one large direction; scaled, because MiniLM's 384 numbers are near 0.05
    and a layer drawn for unit inputs would learn nothing from them.
    """

    means: Floats  # (2, W)
    scale: float

    @classmethod
    def fit(cls, columns: Columns) -> Self:
        """From train rows."""
        centres, squares, count = [], 0.0, 0
        for entity in ENTITIES:
            embedding = columns[f"{entity}_text__embedding"]
            known = embedding[has_vector(embedding)].astype(np.float64)
            centre = known.mean(axis=0) if len(known) else np.zeros(embedding.shape[1])
            squares += float(np.square(known - centre).sum())
            count += known.size
            centres.append(centre)
        spread = float(np.sqrt(squares / count)) if count else 0.0
        return cls(np.stack(centres), 1 / spread if spread > 1e-9 else 0.0)

    @property
    def width(self) -> int:
        return 2 * self.means.shape[1] + len(ENTITIES)

    def encode(self, columns: Columns) -> NDArray[np.float32]:
        """(N, 2 W + 2) float32, finite: user's and business's vector (zeros for null), then their flags."""
        vectors, flags = [], []
        for entity, centre in zip(ENTITIES, self.means, strict=True):
            embedding = columns[f"{entity}_text__embedding"]
            if embedding.shape[1] != len(centre):
                raise ValueError(
                    f"`{entity}_text__embedding` is {embedding.shape[1]} wide, the model wants {len(centre)}"
                )
            known = has_vector(embedding)
            scaled = (embedding - centre) * self.scale
            vectors.append(np.where(known[:, None], scaled, 0.0).astype(np.float32))
            flags.append(known.astype(np.float32)[:, None])
        return np.concatenate([*vectors, *flags], axis=1)

    def to_json(self) -> dict[str, Any]:
        return {"means": self.means.tolist(), "scale": self.scale}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        return cls(np.asarray(kept["means"], dtype=np.float64).reshape(len(ENTITIES), -1), float(kept["scale"]))
