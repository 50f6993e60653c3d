"""What is judged: both models, each a stack of networks, and the floors; and how each says more than it has said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.columns import Columns
from models.floors import floors, gradient_boosting, logistic
from models.history_numbers import COLUMNS
from models.metrics import Floats
from models.trainer import Member
from models.variants import VARIANTS
from pipelines.core.params import Params
from pipelines.core.training_rows import TrainingRows
from pipelines.learning import recommender
from pipelines.paper.catalogue import Score

Splits = Mapping[str, TrainingRows]

NETWORKS = ("proposed", "baseline")
LEARNED_FLOORS = ("logistic", "gradient_boosting")


@dataclass(frozen=True)
class Judged:
    """What a model says, and what it needs to say more."""

    validation: Floats  # (N,)
    test: Floats  # (N,)
    members: Mapping[str, Floats]  # split -> (M, N), of its networks; a floor has none
    reads: Sequence[str]
    score: Score


def members_of(count: int, params: Params) -> list[Member]:
    return [Member(params.seed + i, params.dropout, params.class_weights) for i in range(count)]


def networks(splits: Splits, params: Params) -> dict[str, Judged]:
    """Each model's networks, trained side by side."""
    made = {}
    for name in NETWORKS:
        members = members_of(params.compare.seeds, params)
        stack = recommender(splits, VARIANTS[name], params, members, f"{name}, {len(members)} networks")
        said = {split: stack.member_probabilities(splits[split].columns) for split in ("validation", "test")}
        means = {split: one.mean(axis=0) for split, one in said.items()}
        made[name] = Judged(means["validation"], means["test"], said, stack.encoding.columns, stack.probabilities)
    return made


def floor_models(splits: Splits, seed: int) -> dict[str, Judged]:
    """The floors. One is fitted anew for each part of the catalogue, which takes a second and gives the same."""
    columns = {split: rows.columns for split, rows in splits.items()}
    labels = {split: rows.labels for split, rows in splits.items()}
    share = float(labels["train"].mean())
    said = floors(columns, labels, ("validation", "test"), seed)

    def constant(pairs: Columns) -> Floats:
        return np.full(len(pairs["event_timestamp"]), share)

    def of_logistic(pairs: Columns) -> Floats:
        return logistic(columns | {"pairs": pairs}, labels["train"], ("pairs",))["pairs"]

    def of_boosting(pairs: Columns) -> Floats:
        nobody = np.zeros(len(pairs["event_timestamp"]), np.int8)  # of their labels only the number is read
        return gradient_boosting(columns | {"pairs": pairs}, labels | {"pairs": nobody}, ("pairs",), seed)["pairs"]

    learned = {"logistic": of_logistic, "gradient_boosting": of_boosting} if 0 < share < 1 else {}
    return {
        name: Judged(one["validation"], one["test"], {}, COLUMNS, learned.get(name, constant))
        for name, one in said.items()
    }
