"""The leak prover: a sample of the training set recomputed the obvious way, compared bit by bit, and perturbed.

`may_see` says in two lines what `pipelines.core.visibility` computes fast; nothing of that module's rule is used here.
Then worlds are built in which what a review must not see is changed, removed or added, the fast code runs over them,
and no bit of the review's features may move. One leak stops the pipeline.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.core.command import run_stage
from pipelines.core.errors import CheckFailed, UserError
from pipelines.core.feature_rows import ENTITIES, Vectors, number_tables, vector_tables
from pipelines.core.params import History, Params, Protocol
from pipelines.core.progress import progress
from pipelines.core.tables import FEATURE_TABLES, whole_file
from pipelines.core.visibility import RATING_UNIT, TREND_INSTANTS, VECTOR_UNIT
from pipelines.history import read_members, read_vectors

NUMBERS = ("review_count", "rating_mean", "rating_std", "rating_trend", "newest_review_at")
FEATURES = [f"{entity}_history__{number}" for entity in ENTITIES for number in NUMBERS]
FEATURES += [f"{entity}_text__embedding" for entity in ENTITIES]
LONGEST_WORLD = 5_000  # a review whose user's and business's histories are longer is compared, not perturbed

Row = dict[str, Any]


@dataclass(frozen=True)
class World:
    """Reviews that take part, in the columns of `read_members`, and their text vectors in the same order."""

    members: pd.DataFrame
    vectors: Vectors


def may_see(r: pd.Series, others: pd.DataFrame, protocol: Protocol, history: History) -> pd.Series:
    """Which of `others`, reviews of r's user or of r's business, the review `r` may see."""
    if protocol == "point_in_time":
        return others["event_timestamp"] < r["event_timestamp"]
    part = ["fold"] if history.leave_out == "fold" else ["user_id", "business_id"]
    own = (others[part] == r[part]).all(axis=1) & (r["split"] == "train")
    return (others["split"] == "train") & ~own


class Obvious:
    """Features of one review at a time, from all the reviews of its user and business that it may see."""

    def __init__(self, world: World, protocol: Protocol, history: History):
        self.world, self.protocol, self.history = world, protocol, history
        members = world.members.reset_index(drop=True)
        self.members = members
        self.position = {review_id: at for at, review_id in enumerate(members["review_id"])}
        self.of = {entity: members.groupby(f"{entity}_id", sort=False).indices for entity in ENTITIES}

    def around(self, review_id: str) -> tuple[pd.Series, dict[str, pd.DataFrame]]:
        """The review, and all reviews of its user and of its business (itself among them)."""
        r = self.members.iloc[self.position[review_id]]
        return r, {entity: self.members.iloc[self.of[entity][r[f"{entity}_id"]]] for entity in ENTITIES}

    def features(self, review_id: str) -> Row:
        r, around = self.around(review_id)
        made: Row = {}
        for entity, others in around.items():
            seen = others[may_see(r, others, self.protocol, self.history)]
            numbers = obvious_numbers(seen, self.protocol)
            made.update({f"{entity}_history__{name}": value for name, value in numbers.items()})
            made[f"{entity}_text__embedding"] = self.mean_vector(seen.index.to_numpy())
        return made

    def mean_vector(self, seen: np.ndarray) -> np.ndarray | None:
        with_text = seen[self.world.vectors.known[seen]]
        if not len(with_text):
            return None
        total = self.world.vectors.values[with_text].astype(np.int64).sum(axis=0)
        return (total / (len(with_text) * VECTOR_UNIT)).astype(np.float32)


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
        numbers["newest_review_at"] = instants[-1]
    return numbers


def same(left: Any, right: Any) -> bool:
    """Bit for bit: nulls equal nulls, floats by value, vectors by all their components."""
    if left is None or right is None:
        return left is None and right is None
    return bool(np.array_equal(left, right))


# --- the fast code, asked without Feast ----------------------------------------------------------------------------


def fast_features(world: World, asked: pd.DataFrame, protocol: Protocol, history: History) -> dict[str, Row]:
    """The features of the reviews `asked`, from rows as the history stage makes them, joined as Feast joins them."""
    tables = number_tables(pa.Table.from_pandas(world.members, preserve_index=False), protocol, history)
    pieces = {name: [schema.empty_table()] for name, schema in FEATURE_TABLES.items() if name not in tables}
    for name, piece in vector_tables(world.members, world.vectors, "text", protocol, history):
        pieces[name].append(piece)
    tables.update({name: pa.concat_tables(some) for name, some in pieces.items()})
    made: dict[str, Row] = {review_id: {} for review_id in asked["review_id"]}
    for entity in ENTITIES:
        for group, names in (("history", NUMBERS), ("text", ("embedding",))):
            table = tables[f"{entity}_{group}" + ("_by_review" if protocol == "leave_one_out" else "")]
            for review_id, row in _joined(table, asked, protocol):
                values = {name: None if row is None else row[name] for name in names}
                if group == "history" and row is None:
                    values["review_count"] = 0
                made[review_id].update({f"{entity}_{group}__{name}": value for name, value in values.items()})
    return made


def _joined(table: pa.Table, asked: pd.DataFrame, protocol: Protocol) -> Iterator[tuple[str, Row | None]]:
    key = table.schema.names[0]
    by_key: dict[str, list[Row]] = {}
    for row in _plain_rows(table):
        by_key.setdefault(row[key], []).append(row)
    for review in asked.to_dict("records"):
        rows = by_key.get(review[key], [])
        if protocol == "point_in_time":
            rows = [row for row in rows if row["event_timestamp"] < review["event_timestamp"]]
        yield review["review_id"], max(rows, key=lambda row: row["event_timestamp"], default=None)


def _plain_rows(table: pa.Table) -> list[Row]:
    columns: dict[str, list[Any]] = {name: table[name].to_pylist() for name in table.schema.names}
    for name in columns:
        if name.endswith("embedding"):
            columns[name] = [None if vector is None else np.array(vector, np.float32) for vector in columns[name]]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


# --- which rows, and which worlds ----------------------------------------------------------------------------------


def hard_rows(members: pd.DataFrame) -> dict[str, pd.Series]:
    """Masks of the rows where leaks hide."""
    has_time = members["event_timestamp"].notna()
    tie = pd.Series(False, index=members.index)
    first = pd.Series(False, index=members.index)
    for key in ("user_id", "business_id"):
        tie |= members.duplicated([key, "event_timestamp"], keep=False) & has_time
        first |= members.groupby(key)["event_timestamp"].transform("min") == members["event_timestamp"]
        first |= ~members.duplicated(key, keep=False)
    pair = members.duplicated(["user_id", "business_id"], keep=False)
    return {"ties": tie, "first_reviews": first, "double_pairs": pair, "test_rows": members["split"] == "test"}


def sample(members: pd.DataFrame, rows: int, seed: int) -> tuple[list[str], dict[str, int]]:
    """At most `rows` review ids, an eighth of them from each kind of hard row, and how many of each kind are in."""
    hard = hard_rows(members)
    shuffled = members.sample(frac=1, random_state=seed).index
    chosen: dict[int, None] = {}
    for mask in hard.values():
        chosen.update(dict.fromkeys(shuffled[mask[shuffled]][: max(rows // 8, 1)]))
    chosen.update(dict.fromkeys(shuffled))
    picked = list(chosen)[:rows]
    counts = {name: int(mask[picked].sum()) for name, mask in hard.items()}
    return list(members.loc[picked, "review_id"]), counts


@dataclass(frozen=True)
class Surroundings:
    """Copies of everything around some reviews, a namespace of ids for each: one run answers for all of them."""

    world: World
    asked: pd.DataFrame  # the copies of the reviews themselves, in the order given
    hidden: np.ndarray  # (rows,) what the copy's review must not see, itself among it
    own: np.ndarray  # (rows,) the copy's review itself


def surroundings(obvious: Obvious, review_ids: Sequence[str]) -> Surroundings:
    """For each review, all reviews of its user or business under ids of their own (`0:…`, `1:…`)."""
    rows, copies = [], []
    for number, review_id in enumerate(review_ids):
        r, around = obvious.around(review_id)
        others = pd.concat(around.values()).drop_duplicates("review_id")
        rows.append(others.index.to_numpy())
        copy = others.assign(
            hidden=~may_see(r, others, obvious.protocol, obvious.history), own=others["review_id"] == review_id
        )
        for column in ("review_id", "user_id", "business_id"):
            copy[column] = f"{number}:" + copy[column]
        copies.append(copy)
    members = pd.concat(copies, ignore_index=True)
    at = np.concatenate(rows)
    hidden, own = members.pop("hidden").to_numpy(bool), members.pop("own").to_numpy(bool)
    vectors = Vectors(obvious.world.vectors.values[at], obvious.world.vectors.known[at])
    return Surroundings(World(members, vectors), members[own], hidden, own)


def perturbed_worlds(copies: Surroundings, protocol: Protocol) -> Iterator[tuple[str, World]]:
    """(what was done, world): hidden reviews changed in stars and text, removed, and added to."""
    members, vectors, hidden = copies.world.members, copies.world.vectors, copies.hidden
    stars = members["rating"].where(~hidden, np.where(members["rating"] > 3, 1, 5)).astype("float32")
    other_text = np.where(vectors.known[:, None], -vectors.values, VECTOR_UNIT // 32)
    changed = np.where(hidden[:, None], other_text, vectors.values).astype(np.int32)
    yield "changed", World(members.assign(rating=stars), Vectors(changed, vectors.known | hidden))

    # Leave-one-out features are keyed by the review, so that its own row must stay; its content changed above.
    kept = ~hidden | (copies.own & (protocol == "leave_one_out"))
    yield "removed", World(members[kept].reset_index(drop=True), Vectors(vectors.values[kept], vectors.known[kept]))

    again = members[hidden].assign(review_id="again:" + members.loc[hidden, "review_id"], rating=stars[hidden])
    more = Vectors(
        np.concatenate([vectors.values, changed[hidden]]), np.append(vectors.known, np.ones(hidden.sum(), bool))
    )
    yield "added", World(pd.concat([members, again], ignore_index=True), more)


# --- the proof -------------------------------------------------------------------------------------------------------


@dataclass
class Findings:
    """What was compared, and what did not agree."""

    values: int = 0
    leaks: int = 0
    examples: tuple[str, ...] = ()

    def compare(self, review_id: str, expected: Row, found: Row, how: str) -> None:
        for name in FEATURES:
            self.values += 1
            if not same(expected[name], found[name]):
                self.leaks += 1
                said = f"review {review_id}, {name}, {how}: {_short(found[name])} is not {_short(expected[name])}"
                self.examples = (*self.examples, said)[:5]


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return "[" + ", ".join(repr(float(x)) for x in value[:3]) + ", ...]"
    return value.isoformat() if isinstance(value, datetime) else repr(value)


def prove(world: World, read: Callable[[Sequence[str]], dict[str, Row]], params: Params) -> dict[str, Any]:
    """Compare and perturb a sample; the report. `read` gives the training set's features of some review ids."""
    protocol, history = params.protocol, params.history
    obvious = Obvious(world, protocol, history)
    review_ids, hard = sample(obvious.members, params.prove.rows, params.prove.seed)
    training_set = read(review_ids)
    absent = [review_id for review_id in review_ids if review_id not in training_set]
    if absent:
        raise CheckFailed(f"prove: {len(absent)} reviews of the split are not in the training set: {absent[:3]}")

    compared = Findings()
    with progress(len(review_ids), "recomputing", "review") as bar:
        for review_id in review_ids:
            compared.compare(review_id, obvious.features(review_id), training_set[review_id], "recomputed")
            bar.update()

    moved = Findings()
    short = [i for i in review_ids if sum(map(len, obvious.around(i)[1].values())) <= LONGEST_WORLD]
    short = short[: params.prove.perturbed]
    copies = surroundings(obvious, short)
    for done, changed in perturbed_worlds(copies, protocol):
        found = fast_features(changed, copies.asked, protocol, history)
        for review_id, copy in zip(short, copies.asked["review_id"], strict=True):
            how = f"after hidden reviews were {done}"
            moved.compare(review_id, training_set[review_id], found[copy], how)
    return {
        "rows_checked": len(review_ids),
        "values_checked": compared.values,
        "hard_rows": hard,
        "rows_perturbed": len(short),
        "values_perturbed": moved.values,
        "leaks": compared.leaks + moved.leaks,
        "examples": [*compared.examples, *moved.examples],
    }


def read_training_set(folder: Path, review_ids: Sequence[str]) -> dict[str, Row]:
    """The features of those `review_ids` that are in the training set's three files."""
    found: dict[str, Row] = {}
    for split in ("train", "validation", "test"):
        if not (folder / f"{split}.parquet").is_file():
            raise UserError(f"{folder / split}.parquet: no such table; run `dvc repro` to make it")
        table = pq.read_table(
            folder / f"{split}.parquet", columns=["review_id", *FEATURES], filters=[("review_id", "in", review_ids)]
        )
        found.update({row.pop("review_id"): row for row in _plain_rows(table)})
    return found


def main(args: argparse.Namespace, params: Params) -> None:
    members = read_members(args.reviews, args.split)
    world = World(members.to_pandas(), read_vectors(args.text, members["review_id"]))
    report = prove(world, lambda review_ids: read_training_set(args.training_set, review_ids), params)
    with whole_file(args.report) as temporary:
        temporary.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
    if report["leaks"]:
        raise CheckFailed(
            f"prove: {report['leaks']} of {report['values_checked'] + report['values_perturbed']} values leak or"
            f" differ under {params.protocol}; the first: {report['examples'][0]} (more in {args.report})"
        )
    print(
        f"prove: {report['rows_checked']} rows, {report['values_checked']} values recomputed and"
        f" {report['values_perturbed']} perturbed under {params.protocol}, no leak"
    )


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {
            "reviews": "the review table",
            "split": "the membership table",
            "text": "the review texts' embeddings",
            "training-set": "the folder of train, validation and test.parquet",
            "report": "leaks.json to write",
        },
    )
