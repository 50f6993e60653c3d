"""Who is judged: both models, each a stack of networks, and the floors; and how each says more than it has said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from models.floors import fitted_floors
from models.history_numbers import COLUMNS
from models.metrics import Floats
from models.recommender import RankingStack
from models.trainer import Member
from pipelines.core.params import Params
from pipelines.core.training_rows import TrainingRows
from pipelines.paper.catalogue import Score

Splits = Mapping[str, TrainingRows]

NETWORKS = ("proposed", "baseline")
LEARNED_FLOORS = ("logistic", "gradient_boosting")
JUDGED_ON = ("validation", "test")


@dataclass(frozen=True)
class Contender:
    """What a model says, and what it needs to say more."""

    validation: Floats  # (N,)
    test: Floats  # (N,)
    members: Mapping[str, Floats]  # split -> (M, N), of its networks; a floor has none
    reads: Sequence[str]
    score: Score


def members_of(params: Params) -> list[Member]:
    """The networks of every group of features."""
    return [Member(params.seed + i, params.dropout, params.class_weights) for i in range(params.compare.seeds)]


def said_by(stack: RankingStack, splits: Splits) -> dict[str, Floats]:
    """Split -> (M, N) probabilities, on validation and test."""
    return {split: stack.member_probabilities(splits[split].columns) for split in JUDGED_ON}


def network(stack: RankingStack, said: Mapping[str, Floats]) -> Contender:
    """The mean of a stack, which has `said_by` so much."""
    means = {split: one.mean(axis=0) for split, one in said.items()}
    return Contender(means["validation"], means["test"], said, stack.encoding.columns, stack.probabilities)


def floor_models(splits: Splits, seed: int) -> dict[str, Contender]:
    """The floors, each fitted once."""
    columns = {split: rows.columns for split, rows in splits.items()}
    labels = {split: rows.labels for split, rows in splits.items()}
    return {
        name: Contender(
            floor.probabilities(columns["validation"]),
            floor.probabilities(columns["test"]),
            {},
            COLUMNS,
            floor.probabilities,
        )
        for name, floor in fitted_floors(columns, labels, seed).items()
    }
