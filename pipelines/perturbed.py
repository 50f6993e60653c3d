"""Worlds in which what a review must not see is changed, removed or added to; and the fast code, run over them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.feature_rows import TABLES as HISTORY_TABLES
from pipelines.core.feature_rows import entity_of, number_tables, photo_tables, vector_tables
from pipelines.core.params import Protocol
from pipelines.core.review_vectors import Vectors
from pipelines.core.snapshots import Snapshot, feature_rows, snapshot_id, snapshots_of
from pipelines.core.tables import feature_tables
from pipelines.core.visibility import VECTOR_UNIT
from pipelines.obvious import FEATURES, SNAPSHOT_VIEWS, Obvious, Row, Rule, World, may_see

NAMESPACE = ":"  # stands between the number of a copy and the id of what was copied
READ = ("embedding", "price_tag", "subtypes")  # what a model makes of a snapshot; nothing is read here
NameOf = Callable[[Snapshot], str]


# --- the fast code, asked without Feast ----------------------------------------------------------------------------


def fast_features(
    world: World, asked: pd.DataFrame, rule: Rule, names: Sequence[str] = FEATURES, name_of: NameOf | None = None
) -> dict[str, Row]:
    """The features `names` of the reviews `asked`, from rows as the stages make them, joined as Feast joins them.

    `name_of` a snapshot: its snapshot_id, unless told otherwise.
    """
    tables = _history_tables(world, rule)
    snapshots: dict[str, Snapshot] = {}
    for view in SNAPSHOT_VIEWS:
        made = _snapshot_tables(view, world, rule, snapshots)
        tables.update(made)
    found: dict[str, Row] = {review_id: {} for review_id in asked["review_id"]}
    for view in dict.fromkeys(name.split("__")[0] for name in names):
        wanted = [name for name in names if name.startswith(f"{view}__")]
        table = tables[view + ("_by_review" if rule.protocol == "leave_one_out" else "")]
        for review_id, row in joined(table, asked, rule.protocol):
            for name in wanted:
                value = None if row is None else row[name.split("__")[1]]
                if name.endswith("__snapshot_id") and value is not None and name_of is not None:
                    value = name_of(snapshots[value])
                found[review_id][name] = 0 if name.endswith("__review_count") and value is None else value
    return found


def _history_tables(world: World, rule: Rule) -> dict[str, pa.Table]:
    members = pa.Table.from_pandas(world.members, preserve_index=False)
    tables = number_tables(members, rule.protocol, rule.history)
    pieces = {name: [schema.empty_table()] for name, schema in HISTORY_TABLES.items() if name not in tables}
    text = {"embedding": world.vectors["text"]}
    photos = {name: world.vectors[name] for name in ("caption_embedding", "image_embedding")}
    for name, piece in chain(
        vector_tables(world.members, text, "user_text", rule.protocol, rule.history),
        vector_tables(world.members, text, "business_text", rule.protocol, rule.history),
        photo_tables(world.members, photos, rule.protocol, rule.history),
    ):
        pieces[name].append(piece)
    return tables | {name: pa.concat_tables(some) for name, some in pieces.items()}


def _snapshot_tables(view: str, world: World, rule: Rule, into: dict[str, Snapshot]) -> dict[str, pa.Table]:
    """Its feature tables with nothing but the snapshots' names, which are noted in `into`."""
    stage = "tag" if view == "business_tags" else "summarize"
    made = snapshots_of(world.members, entity_of(view), rule.protocol, rule.growth[view], rule.history)
    into.update({snapshot.snapshot_id: snapshot for snapshot in made.made})
    schema = feature_tables(stage)[view]
    unread = {field.name: pa.nulls(len(made.made), field.type) for field in schema if field.name in READ}
    return feature_rows(view, made, unread, stage)


def joined(table: pa.Table, asked: pd.DataFrame, protocol: Protocol) -> Iterator[tuple[str, Row | None]]:
    key = table.schema.names[0]
    by_key: dict[str, list[Row]] = {}
    for row in plain_rows(table.filter(pc.is_in(table[key], pa.array(asked[key], pa.string())))):
        by_key.setdefault(row[key], []).append(row)
    for review in asked.to_dict("records"):
        rows = by_key.get(review[key], [])
        if protocol == "point_in_time":
            rows = [row for row in rows if row["event_timestamp"] < review["event_timestamp"]]
        yield review["review_id"], max(rows, key=lambda row: row["event_timestamp"], default=None)


def plain_rows(table: pa.Table) -> list[Row]:
    """Python's own values; vectors as arrays."""
    columns: dict[str, list[Any]] = {}
    for field in table.schema:
        column = table[field.name]
        columns[field.name] = _arrays(column) if field.name.endswith("embedding") else column.to_pylist()
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _arrays(column: pa.ChunkedArray) -> list[np.ndarray | None]:
    rows: list[np.ndarray | None] = []
    for chunk in column.chunks:
        values = chunk.values.to_numpy(zero_copy_only=False).astype(np.float32)
        ends = chunk.offsets.to_numpy()
        known = chunk.is_valid().to_numpy(zero_copy_only=False)
        rows += [values[ends[i] : ends[i + 1]] if known[i] else None for i in range(len(chunk))]
    return rows


# --- other worlds --------------------------------------------------------------------------------------------------


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
        others = pd.concat(around.values()).drop_duplicates("review_id").sort_values("review_id")
        rows.append(others.index.to_numpy())
        copy = others.assign(hidden=~may_see(r, others, obvious.rule), own=others["review_id"] == review_id)
        for column in ("review_id", "user_id", "business_id"):
            copy[column] = f"{number}{NAMESPACE}" + copy[column]
        copies.append(copy)
    members = pd.concat(copies, ignore_index=True)
    at = np.concatenate(rows)
    hidden, own = members.pop("hidden").to_numpy(bool), members.pop("own").to_numpy(bool)
    vectors = {name: some.taken(at) for name, some in obvious.world.vectors.items()}
    return Surroundings(World(members, vectors), members[own], hidden, own)


def original_name(snapshot: Snapshot) -> str:
    """The snapshot_id it would have among the reviews that were copied."""

    def plain(name: str) -> str:
        return name.split(NAMESPACE, 1)[1]

    return snapshot_id(
        snapshot.entity, plain(snapshot.entity_id), [plain(i) for i in snapshot.review_ids], snapshot.texts
    )


def perturbed_worlds(copies: Surroundings, protocol: Protocol) -> Iterator[tuple[str, World]]:
    """(what was done, world): hidden reviews changed in stars, text and photos, removed, and added to."""
    members, vectors, hidden = copies.world.members, copies.world.vectors, copies.hidden
    other = members.assign(
        rating=members["rating"].where(~hidden, np.where(members["rating"] > 3, 1, 5)).astype("float32"),
        text=members["text"].where(~hidden, "other words than " + members["text"]),
    )
    changed = {name: _changed(some, hidden) for name, some in vectors.items()}
    yield "changed", World(other, changed)

    # Leave-one-out features are keyed by the review, so that its own row must stay; its content changed above.
    kept = ~hidden | (copies.own & (protocol == "leave_one_out"))
    left = {name: some.taken(np.flatnonzero(kept)) for name, some in vectors.items()}
    yield "removed", World(members[kept].reset_index(drop=True), left)

    again = other[hidden].assign(review_id=other.loc[hidden, "review_id"] + " again")
    more = {
        name: some.joined(changed[name].taken(np.flatnonzero(hidden)), len(members)) for name, some in vectors.items()
    }
    yield "added", World(pd.concat([members, again], ignore_index=True), more)


def _changed(vectors: Vectors, hidden: np.ndarray) -> Vectors:
    """The vectors of hidden reviews turned round, and a further one for each of them."""
    if not vectors.values.shape[1]:  # a source without photos: nobody knows how wide one would be
        return vectors
    turned = np.where(hidden[vectors.owner][:, None], -vectors.values, vectors.values).astype(np.int32)
    more = np.flatnonzero(hidden)
    values = np.concatenate([turned, np.full((len(more), vectors.values.shape[1]), VECTOR_UNIT // 32, np.int32)])
    owner = np.append(vectors.owner, more)
    order = np.argsort(owner, kind="stable")
    return Vectors(values[order], owner[order])
