"""Feature tables from reviews: `visibility` applied to numbers and to vectors, in memory-bounded pieces."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipelines.core import visibility
from pipelines.core.params import History, Protocol
from pipelines.core.progress import progress
from pipelines.core.review_vectors import Vectors
from pipelines.core.tables import feature_tables, vector_column
from pipelines.core.visibility import Entity, Ints, key_of

ENTITIES: tuple[Entity, ...] = ("user", "business")
CHUNK = 50_000 * 384  # numbers whose sums are in memory at once: 50,000 reviews' text, in int64 154 MB
TABLES = feature_tables("history")


def number_tables(members: pa.Table, protocol: Protocol, history: History) -> dict[str, pa.Table]:
    """The `*_history` tables of `members`: review_id, user_id, business_id, rating, event_timestamp, split, fold."""
    connection = ibis.duckdb.connect()
    connection.raw_sql("SET TimeZone = 'UTC'")
    reviews = ibis.memtable(members)

    def run(name: str, rows: ir.Table) -> pa.Table:
        schema = TABLES[name]
        made = connection.to_pyarrow(rows).select(schema.names).cast(schema)
        return made.sort_by([(schema.names[0], "ascending"), ("event_timestamp", "ascending")])

    tables = {}
    for entity in ENTITIES:
        name, by_review = f"{entity}_history", f"{entity}_history_by_review"
        if protocol == "point_in_time":
            tables[name] = run(name, visibility.numbers_over_time(reviews, entity))
            tables[by_review] = TABLES[by_review].empty_table()
        else:
            tables[name] = run(name, visibility.numbers_of_train(reviews, entity, history.as_of))
            left_out = visibility.numbers_left_out(reviews, entity, history.leave_out, history.as_of)
            tables[by_review] = run(by_review, left_out)
    connection.disconnect()
    return tables


def entity_of(view: str) -> Entity:
    """Whom a view is about: its name says it first."""
    return cast(Entity, view.split("_")[0])


def vector_tables(
    members: pd.DataFrame, vectors: Mapping[str, Vectors], view: str, protocol: Protocol, history: History
) -> Iterator[tuple[str, pa.Table]]:
    """Pieces (table name, rows) of the tables of `view`: per column the mean of the vectors that each row sees.

    `members` as in `number_tables`; `vectors` by column, of these members. No piece splits an entity.
    """
    entity = entity_of(view)
    key, ids = pd.factorize(members[key_of(entity)], sort=True)
    width = sum(some.values.shape[1] for some in vectors.values())
    with progress(len(key), f"{view} means", "review") as bar:
        for rows in whole_entities(key, CHUNK // max(width, 1)):
            taken = {name: some.taken(rows) for name, some in vectors.items()}
            piece = _Piece(members.iloc[rows], taken, key[rows], ids, history)
            if protocol == "point_in_time":
                yield view, piece.over_time(view)
            else:
                yield view, piece.of_train(view)
                yield f"{view}_by_review", piece.left_out(f"{view}_by_review", entity)
            bar.update(len(rows))


def photo_tables(
    members: pd.DataFrame, photos: Mapping[str, Vectors], protocol: Protocol, history: History
) -> Iterator[tuple[str, pa.Table]]:
    """Pieces of the tables of `business_photos`, as `vector_tables` makes them.

    By time, reviews without photos make no row: it would repeat 2,432 numbers, and the newest row says the same.
    """
    if protocol == "point_in_time":
        rows = np.unique(np.concatenate([some.owner for some in photos.values()]))
        members = members.iloc[rows]
        photos = {name: some.taken(rows) for name, some in photos.items()}
    yield from vector_tables(members, photos, "business_photos", protocol, history)


def whole_entities(key: Ints, size: int) -> Iterator[Ints]:
    """Index arrays that hold whole entities in the order of their codes, about `size` reviews each."""
    order = np.argsort(key, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(key[order])) + 1, len(order))
    start = 0
    while start < len(order):
        stop = ends[max(np.searchsorted(ends, start + size, "right") - 1, np.searchsorted(ends, start, "right"))]
        yield order[start:stop]
        start = stop


@dataclass(frozen=True)
class _Piece:
    """The reviews of some entities, whole."""

    members: pd.DataFrame
    vectors: dict[str, Vectors]
    key: Ints  # codes into `ids`
    ids: pd.Index
    history: History

    def over_time(self, name: str) -> pa.Table:
        instants = self.members["event_timestamp"].to_numpy("datetime64[us]").view(np.int64)
        running = visibility.running_rows(self.key, instants)
        newest = running.order[running.stop - 1]
        means = {
            column: tuple(visibility.sums_over_time(some, running) for some in vectors.sums(self._all))
            for column, vectors in self.vectors.items()
        }
        return _table(name, self.ids[self.key[newest]], instants[newest], means)

    def of_train(self, name: str) -> pa.Table:
        train = np.flatnonzero(self._train)
        codes, group = np.unique(self.key[train], return_inverse=True)
        means = {
            column: tuple(visibility.sums_by(group, some, len(codes)) for some in vectors.sums(train))
            for column, vectors in self.vectors.items()
        }
        return _table(name, self.ids[codes], self._as_of(len(codes)), means)

    def left_out(self, name: str, entity: Entity) -> pa.Table:
        other: Entity = "business" if entity == "user" else "user"
        part_of = self.members[key_of(other) if self.history.leave_out == "pair" else "fold"]
        part, _ = pd.factorize(pd.MultiIndex.from_arrays([self.key, part_of]))
        key, _ = pd.factorize(self.key)
        means = {
            column: tuple(visibility.sums_left_out(key, part, self._train, some) for some in vectors.sums(self._all))
            for column, vectors in self.vectors.items()
        }
        return _table(name, self.members["review_id"], self._as_of(len(self.members)), means)

    @property
    def _all(self) -> Ints:
        return np.arange(len(self.members))

    @property
    def _train(self) -> npt.NDArray[np.bool_]:
        return (self.members["split"] == "train").to_numpy()

    def _as_of(self, rows: int) -> Ints:
        return np.full(rows, microseconds(self.history.as_of))


def microseconds(instant: datetime) -> int:
    """Since 1970, of an instant with a time zone."""
    return int(pd.Timestamp(instant).timestamp() * 1_000_000)


def _table(name: str, ids: pd.Index | pd.Series, instants: Ints, means: Mapping[str, tuple[Ints, ...]]) -> pa.Table:
    """`means`: column -> sums (n, D) and counts (n, 1)."""
    schema = TABLES[name]
    columns = [pa.array(ids, pa.string()), pa.array(instants, schema.field(1).type)]
    for column in schema.names[2:]:
        sums, counts = means[column]
        columns.append(vector_column(visibility.mean_of(sums, counts[:, 0]), counts[:, 0] > 0))
    return pa.Table.from_arrays(columns, schema=schema)
