"""The obvious twin of every feature: one review at a time, from all the reviews of its user and business it may see.

`may_see` says in two lines what `pipelines.core.visibility` computes fast; nothing of that module's rule is used here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipelines.core.feature_rows import ENTITIES, entity_of
from pipelines.core.params import History, Params, Protocol
from pipelines.core.review_vectors import Vectors
from pipelines.core.snapshots import Snapshot, snapshot_id
from pipelines.core.visibility import RATING_UNIT, TREND_INSTANTS, VECTOR_UNIT

NUMBERS = ("review_count", "rating_mean", "rating_std", "rating_trend", "newest_review_at")
# The column of vectors that a feature is the mean of.
VECTORS_OF = {
    "user_text__embedding": "text",
    "business_text__embedding": "text",
    "business_photos__caption_embedding": "caption_embedding",
    "business_photos__image_embedding": "image_embedding",
}
SNAPSHOT_VIEWS = ("user_summary", "business_summary", "business_tags")
FEATURES = [
    *(f"{entity}_history__{number}" for entity in ENTITIES for number in NUMBERS),
    *VECTORS_OF,
    *(f"{view}__snapshot_id" for view in SNAPSHOT_VIEWS),
]

Row = dict[str, Any]
Told = tuple[Any, str, str]  # instant (None under leave_one_out), review_id, text


@dataclass(frozen=True)
class World:
    """Reviews that take part, in the columns of `read_histories` with their ratings; vectors of them by column."""

    members: pd.DataFrame
    vectors: Mapping[str, Vectors]


@dataclass(frozen=True)
class Rule:
    """The parameters that say what a review may see."""

    protocol: Protocol
    history: History
    growth: Mapping[str, float]  # of the snapshots of each view

    @classmethod
    def of(cls, params: Params) -> "Rule":
        growth = dict.fromkeys(("user_summary", "business_summary"), params.summarize.growth)
        return cls(params.protocol, params.history, growth | {"business_tags": params.tag.growth})

    def by_fold(self) -> "Rule":
        """The rule of what language models are shown: under leave_one_out the whole fold is left out."""
        return Rule(self.protocol, self.history.model_copy(update={"leave_out": "fold"}), self.growth)


def may_see(r: pd.Series, others: pd.DataFrame, rule: Rule) -> pd.Series:
    """Which of `others`, reviews of r's user or of r's business, the review `r` may see."""
    if rule.protocol == "point_in_time":
        return others["event_timestamp"] < r["event_timestamp"]
    part = ["fold"] if rule.history.leave_out == "fold" else ["user_id", "business_id"]
    own = (others[part] == r[part]).all(axis=1) & (r["split"] == "train")
    return (others["split"] == "train") & ~own


class Obvious:
    """Features of one review at a time."""

    def __init__(self, world: World, rule: Rule):
        self.rule = rule
        self.world = World(world.members.reset_index(drop=True), world.vectors)
        self.members = self.world.members
        self.position = {review_id: at for at, review_id in enumerate(self.members["review_id"])}
        self.of = {entity: self.members.groupby(f"{entity}_id", sort=False).indices for entity in ENTITIES}

    def around(self, review_id: str) -> tuple[pd.Series, dict[str, pd.DataFrame]]:
        """The review, and all reviews of its user and of its business (itself among them)."""
        r = self.members.iloc[self.position[review_id]]
        return r, {entity: self.members.iloc[self.of[entity][r[f"{entity}_id"]]] for entity in ENTITIES}

    def features(self, review_id: str, names: Sequence[str] = FEATURES) -> Row:
        """Those of FEATURES that `names` has."""
        r, around = self.around(review_id)
        seen = {entity: others[may_see(r, others, self.rule)] for entity, others in around.items()}
        numbers = {entity: obvious_numbers(some, self.rule.protocol) for entity, some in seen.items()}
        made: Row = {}
        for name in names:
            view, feature = name.split("__")
            entity = entity_of(view)
            if feature in NUMBERS:
                made[name] = numbers[entity][feature]
            elif name in VECTORS_OF:
                made[name] = self.mean_vector(VECTORS_OF[name], seen[entity].index.to_numpy())
            else:
                read = self.snapshot(review_id, view)
                made[name] = None if read is None else read.snapshot_id
        return made

    def snapshot(self, review_id: str, view: str) -> Snapshot | None:
        """The snapshot that a review reads in `view`; None where it may be shown nothing."""
        entity = entity_of(view)
        r, around = self.around(review_id)
        read = obvious_snapshot(self.shown(r, around[entity]), self.rule, view)
        ids, texts = tuple(review_id for _, review_id, _ in read), tuple(text for _, _, text in read)
        entity_id = r[f"{entity}_id"]
        return Snapshot(snapshot_id(entity, entity_id, ids, texts), entity, entity_id, 0, ids, texts) if read else None

    def shown(self, r: pd.Series, others: pd.DataFrame) -> list[Told]:
        """What a language model may be shown of `others`."""
        seen = others[may_see(r, others, self.rule.by_fold())]
        at = seen["event_timestamp"] if self.rule.protocol == "point_in_time" else [None] * len(seen)
        return [told for told in zip(at, seen["review_id"], seen["text"], strict=True) if told[2] != ""]

    def mean_vector(self, column: str, seen: np.ndarray) -> np.ndarray | None:
        vectors = self.world.vectors[column]
        own = vectors.values[np.isin(vectors.owner, seen)]
        if not len(own):
            return None
        return (own.astype(np.int64).sum(axis=0) / (len(own) * VECTOR_UNIT)).astype(np.float32)


def obvious_numbers(seen: pd.DataFrame, protocol: Protocol) -> Row:
    """The history numbers of the reviews `seen`, in Python's own integers."""
    numbers: Row = dict.fromkeys(NUMBERS)
    numbers["review_count"] = n = len(seen)
    if n == 0:
        return numbers
    # a half goes up, as in SQL; Python's round() would take it to the even side
    ratings = [math.floor(float(rating) * RATING_UNIT + 0.5) for rating in seen["rating"]]
    numbers["rating_mean"] = sum(ratings) / (n * RATING_UNIT)
    spread = n * sum(rating * rating for rating in ratings) - sum(ratings) ** 2
    numbers["rating_std"] = math.sqrt(spread) / (n * RATING_UNIT)
    if protocol == "point_in_time":
        instants = sorted(set(seen["event_timestamp"]))
        newest = seen["event_timestamp"].isin(instants[-TREND_INSTANTS:])
        recent = [rating for rating, is_new in zip(ratings, newest, strict=True) if is_new]
        numbers["rating_trend"] = sum(recent) / (len(recent) * RATING_UNIT) - numbers["rating_mean"]
        numbers["newest_review_at"] = instants[-1].floor("s")
    return numbers


def obvious_snapshot(told: list[Told], rule: Rule, view: str) -> list[Told]:
    """Of the reviews that may be shown, those in the newest snapshot, in the order in which they are read."""
    if rule.protocol == "leave_one_out":
        return sorted(told, key=lambda one: one[1])
    held: list[Told] = []
    for instant in sorted({at for at, _, _ in told}):
        until = [one for one in told if one[0] <= instant]
        if not held or len(until) >= rule.growth[view] * len(held):
            held = until
    return sorted(held)


def same(left: Any, right: Any) -> bool:
    """Bit for bit: nulls equal nulls, floats by value, vectors by all their components."""
    if left is None or right is None:
        return left is None and right is None
    return bool(np.array_equal(left, right))
