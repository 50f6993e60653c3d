"""What moves a probability: the same row, asked again with a group of its columns made unknown (occlusion).

Unknown is what the model sees where Feast has no row: a count of 0, else null. A change is the probability less what it
would be then. It is exact, and asks nothing of how the model is built. Changes add up neither to the probability nor to
each other: two groups that say the same are worth little one by one and much together, and a whole history contains its
numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.columns import Columns
from models.encoding import Encoding
from models.history_numbers import COLUMNS, ENTITIES
from models.recommender import TrainedRecommender

POSSESSIVE = {"user": "the user's", "business": "the business's"}
# A dense number's kind -> the columns of a history that it is made of.
NUMBERS = {
    "count": ("review_count",),
    "mean": ("rating_mean",),
    "shrunk_mean": ("rating_mean", "review_count"),
    "std": ("rating_std",),
    "trend": ("rating_trend",),
    "recency": ("newest_review_at",),
    "is_known": ("review_count",),
}
# What they are called, in the order in which they are told.
IN_HISTORY = {
    "review_count": "how many reviews {whose} history has",
    "rating_mean": "stars of {whose} reviews",
    "rating_std": "spread of the stars of {whose} reviews",
    "rating_trend": "trend of the stars of {whose} reviews",
    "newest_review_at": "age of {whose} newest review",
}
# How the name of any other column ends -> what it is called.
OTHERS = {
    "_text__embedding": "texts of {whose} reviews",
    "_summary__embedding": "summary of {whose} reviews",
    "_photos__image_embedding": "{whose} photos",
    "_photos__caption_embedding": "captions of {whose} photos",
    "_tags__price_tag": "{whose} price tag",
    "_tags__subtypes": "{whose} types",
}


@dataclass(frozen=True)
class Group:
    """Columns that are made unknown together."""

    what: str
    columns: tuple[str, ...]


def groups(encoding: Encoding) -> list[Group]:
    """Of all that a model reads: each entity's whole history, its single numbers, and every other column."""
    return [
        *(group for entity in ENTITIES for group in history_groups(encoding, entity)),
        *(Group(called(name), (name,)) for name in encoding.columns if name not in COLUMNS),
    ]


def history_groups(encoding: Encoding, entity: str) -> list[Group]:
    """Where the model reads one column of an entity's history, that one is the whole."""
    whose = POSSESSIVE[entity]
    kinds = [kind for kind in NUMBERS if f"{entity}_{kind}" in encoding.numbers.names]
    read = {column for kind in kinds for column in NUMBERS[kind]}
    single = []
    for column, words in IN_HISTORY.items():
        if column in read:
            what = words.format(whose=whose)
            if column == "review_count" and "shrunk_mean" in kinds:
                what += ", and so how much their stars count"
            single.append(Group(what, (f"{entity}_history__{column}",)))
    if len(single) < 2:
        return single
    whole = tuple(name for group in single for name in group.columns)
    return [Group(f"all numbers of {whose} history", whole), *single]


def called(name: str) -> str:
    """In plain words what a column of `OTHERS` is; a name that is not among them speaks for itself."""
    for entity, whose in POSSESSIVE.items():
        for ending, what in OTHERS.items():
            if name == entity + ending:
                return what.format(whose=whose)
    return name


def moved(model: TrainedRecommender, columns: Columns) -> tuple[float, list[dict[str, Any]]]:
    """The probability of a row (columns of length 1), and what each group moves it by, the most first.

    Of a group that is unknown as it is, `what` says so. Unencodable as the model's `probabilities`.
    """
    named = groups(model.encoding)
    rows = occluded(columns, [group.columns for group in named])
    said = model.probabilities(rows)
    # In float32 what equal rows get differs by 4e-8 with their place in a batch; what reads the same says the same.
    said = np.where(reads_the_same(model.encoding, rows), said[0], said)
    probability = float(said[0])
    found = []
    for group, without in zip(named, said[1:], strict=True):
        known = any(is_known(columns[name]) for name in group.columns)
        found.append(
            {
                "what": group.what if known else f"{group.what} (unknown)",
                "features": list(group.columns),
                "known": known,
                "without": float(without),
                "change": probability - float(without),
            }
        )
    return probability, sorted(found, key=lambda group: -abs(group["change"]))


def reads_the_same(encoding: Encoding, rows: Columns) -> NDArray[np.bool_]:
    """(N,): whether a row is to the network what the first one is."""
    inputs = encoding.encode(rows).values()
    return np.all([(made == made[:1]).all(axis=1) for made in inputs], axis=0)


def occluded(columns: Columns, groups_: Sequence[Sequence[str]]) -> dict[str, NDArray[Any]]:
    """The one row of `columns` as it is, then once a group with that group's columns unknown: (1 + G,) each."""
    rows = {name: np.repeat(values, 1 + len(groups_), axis=0) for name, values in columns.items()}
    for row, names in enumerate(groups_, start=1):
        for name in names:
            rows[name][row] = unknown(rows[name])
    return rows


def unknown(column: NDArray[Any]) -> Any:
    """What stands for null in a column, by its type."""
    nulls: Mapping[str, Any] = {"i": 0, "f": np.nan, "M": np.datetime64("NaT"), "O": None}
    return nulls[column.dtype.kind]


def is_known(column: NDArray[Any]) -> bool:
    """Whether the one row of a column says anything. An embedding's row is NaN throughout, or nowhere."""
    value = column[0]
    if column.dtype.kind == "O":
        return value is not None
    if column.dtype.kind == "i":
        return bool(value != 0)
    return bool(np.size(value)) and not bool(np.any(np.isnat(value) if column.dtype.kind == "M" else np.isnan(value)))
