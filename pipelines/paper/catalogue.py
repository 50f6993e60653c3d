"""Every user of the test set before every business there is, with the features of one instant: the test's first.

So a ranking is of what a recommender would have said when the test began, over the whole catalogue. Users and
businesses are each asked for once; pairs exist a part at a time.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.columns import Columns, Floats
from models.ranking import Ranking, ranking
from pipelines.core.params import Params
from pipelines.core.repo_imports import import_from
from pipelines.core.training_rows import TrainingRows, columns, training_set_schema, vector_names, vector_width
from pipelines.core.visibility import RESOLUTION
from pipelines.training_set import ask, registered_services, side_by_side

Score = Callable[[Columns], Floats]
"""Columns of N pairs to (N,) scores."""
Bools = NDArray[np.bool_]

BYTES = 1 << 27  # of one part's columns: wide embeddings stand in each of a user's pairs


@dataclass(frozen=True)
class Wishes:
    """What U users liked in the test, and what each had reviewed before it, among all B businesses."""

    users: list[str]
    businesses: list[str]
    liked: Bools  # (U, B)
    seen: Bools  # (U, B)


@dataclass(frozen=True)
class Catalogue:
    """`wishes`, and the features of its users (U rows a column) and businesses (B rows) as of `instant`."""

    wishes: Wishes
    of_user: Columns
    of_business: Columns
    instant: np.datetime64

    def pairs(self, reads: Sequence[str], users: slice) -> dict[str, np.ndarray]:
        """The columns `reads` of some users' pairs with every business, user by user."""
        count, places = len(self.wishes.users[users]), len(self.wishes.businesses)
        made: dict[str, np.ndarray] = {}
        for name in reads:
            if name == "event_timestamp":
                made[name] = np.full(count * places, self.instant)
            elif name in self.of_user:
                made[name] = np.repeat(self.of_user[name][users], places, axis=0)
            else:
                column = self.of_business[name]
                made[name] = np.tile(column, (count, *[1] * (column.ndim - 1)))
        return made

    def rank(self, reads: Sequence[str], score: Score, k: int, ranked: Callable[[int], object]) -> Ranking:
        """Figures (U,) of the order in which `score`, which needs the columns `reads`, puts what is not yet seen.

        `ranked` is told how many users more are done.
        """
        users, places = self.wishes.liked.shape
        wide = sum(column.nbytes for column in self.pairs(reads, slice(1)).values())  # of one user
        step = max(BYTES // max(wide, 1), 1)
        parts = []
        for start in range(0, users, step):
            some = slice(start, min(start + step, users))
            scores = score(self.pairs(reads, some)).reshape(-1, places)
            parts.append(ranking(scores, self.wishes.liked[some], self.wishes.seen[some], k))
            ranked(some.stop - some.start)
        return Ranking(*(np.concatenate(figure) for figure in zip(*parts, strict=True)))


def wishes_of(splits: Mapping[str, TrainingRows], most: int, seed: int) -> Wishes:
    """Of test users who liked a place that they had not reviewed before; of more than `most`, those first by hash.

    Businesses are all that any split knows: one that nobody had reviewed before the test was there to be found. What
    train and validation hold is before the test by time, and what is known under leave_one_out.
    """
    keys = ["user_id", "business_id"]
    frames = {split: rows.table.select([*keys, "label"]).to_pandas() for split, rows in splits.items()}
    everything = pd.concat(frames.values())
    businesses = sorted(everything["business_id"].unique())
    before = pd.concat([frames["train"], frames["validation"]])[keys].drop_duplicates()
    liked = frames["test"][frames["test"]["label"] == 1][keys].drop_duplicates()
    fresh = liked.merge(before, on=keys, how="left", indicator=True)
    users = fresh[fresh["_merge"] == "left_only"]["user_id"].unique()
    drawn = sorted(sorted(users, key=lambda user: hashlib.sha256(f"{seed}\n{user}".encode()).digest())[:most])
    return Wishes(drawn, businesses, table_of(liked, drawn, businesses), table_of(before, drawn, businesses))


def table_of(pairs: pd.DataFrame, users: list[str], businesses: list[str]) -> Bools:
    """(U, B): whether a user and a business stand together in `pairs`."""
    table = np.zeros((len(users), len(businesses)), np.bool_)
    row, column = (
        pd.Index(ids).get_indexer(pd.Index(pairs[key]))
        for key, ids in (("user_id", users), ("business_id", businesses))
    )
    table[row[row >= 0], column[row >= 0]] = True
    return table


def last_instant(test: TrainingRows, params: Params) -> pd.Timestamp:
    """The last instant before the test; leave_one_out, which knows no time: the one at which features are stamped."""
    if params.protocol == "leave_one_out":
        return pd.Timestamp(params.history.as_of)
    return pd.Timestamp(pc.min(test.table["event_timestamp"]).as_py()) - RESOLUTION


def catalogue_of(wishes: Wishes, cut: pd.Timestamp, repo: Path, registry: Path) -> Catalogue:
    """`wishes` with the features that Feast knows at `cut`, from the views that are served online.

    Under leave_one_out these are of all training reviews, which is what a test row sees.
    """
    import_from(repo)
    store, services = registered_services(repo, registry, "point_in_time")
    from filling import fill_counts

    def of(entity: str, ids: list[str]) -> Columns:
        other = "business" if entity == "user" else "user"
        # Of whom else is asked in the same row matters not: no view is keyed by both, and theirs is left aside.
        asked = pd.DataFrame({"review_id": ids, f"{entity}_id": ids, f"{other}_id": "anybody"}, dtype=object)
        asked["event_timestamp"] = pd.Series([cut] * len(ids), dtype="datetime64[us, UTC]")
        answers = {model: ask(store, service, asked) for model, service in services.items()}
        return columns_of(fill_counts(side_by_side(pa.chunked_array([ids], pa.string()), answers)), entity)

    instant = np.datetime64(cut.tz_convert("UTC").tz_localize(None), "us")
    return Catalogue(wishes, of("user", wishes.users), of("business", wishes.businesses), instant)


def columns_of(features: pa.Table, entity: str) -> Columns:
    """The columns of `entity`'s views, typed and encoded as those of the training set."""
    fields = [field for field in training_set_schema() if field.name.startswith(f"{entity}_") and "__" in field.name]
    schema = pa.schema(fields)
    table = features.select(schema.names).cast(schema)
    widths = {name: vector_width(table[name]) for name in vector_names(schema)}
    return columns(table, widths, f"the catalogue's {entity} features")
