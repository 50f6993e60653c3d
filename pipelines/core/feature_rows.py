"""Feature tables from reviews: `visibility` applied to numbers and to vectors, in memory-bounded pieces."""

from collections.abc import Iterator
from dataclasses import dataclass

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipelines.core import visibility
from pipelines.core.params import History, Protocol
from pipelines.core.progress import progress
from pipelines.core.tables import FEATURE_TABLES, vector_column
from pipelines.core.visibility import Entity, Ints, key_of

ENTITIES: tuple[Entity, ...] = ("user", "business")
CHUNK = 50_000  # reviews whose sums are in memory at once: 50,000 x 384 int64 is 154 MB


@dataclass(frozen=True)
class Vectors:
    """A vector per review, or none."""

    values: npt.NDArray[np.int32]  # (N, D) quantised, zeros where there is none
    known: npt.NDArray[np.bool_]  # (N,)


def number_tables(members: pa.Table, protocol: Protocol, history: History) -> dict[str, pa.Table]:
    """The `*_history` tables of `members`: review_id, user_id, business_id, rating, event_timestamp, split, fold."""
    connection = ibis.duckdb.connect()
    connection.raw_sql("SET TimeZone = 'UTC'")
    reviews = ibis.memtable(members)

    def run(name: str, rows: ir.Table) -> pa.Table:
        schema = FEATURE_TABLES[name]
        made = connection.to_pyarrow(rows).select(schema.names).cast(schema)
        return made.sort_by([(schema.names[0], "ascending"), ("event_timestamp", "ascending")])

    tables = {}
    for entity in ENTITIES:
        name, by_review = f"{entity}_history", f"{entity}_history_by_review"
        if protocol == "point_in_time":
            tables[name] = run(name, visibility.numbers_over_time(reviews, entity))
            tables[by_review] = FEATURE_TABLES[by_review].empty_table()
        else:
            tables[name] = run(name, visibility.numbers_of_train(reviews, entity, history.as_of))
            left_out = visibility.numbers_left_out(reviews, entity, history.leave_out, history.as_of)
            tables[by_review] = run(by_review, left_out)
    connection.disconnect()
    return tables


def vector_tables(
    members: pd.DataFrame, vectors: Vectors, group: str, protocol: Protocol, history: History
) -> Iterator[tuple[str, pa.Table]]:
    """Pieces (table name, rows) of the `*_{group}` tables: the mean of the vectors that each row sees.

    `members` as in `number_tables`, `vectors` in its order. No piece splits an entity.
    """
    for entity in ENTITIES:
        key, ids = pd.factorize(members[key_of(entity)], sort=True)
        name = f"{entity}_{group}"
        with progress(len(key), f"{name} means", "review") as bar:
            for rows in whole_entities(key):
                some = _Piece(members.iloc[rows], vectors.values[rows], vectors.known[rows], key[rows], ids, history)
                if protocol == "point_in_time":
                    yield name, some.over_time(name)
                else:
                    yield name, some.of_train(name)
                    yield f"{name}_by_review", some.left_out(f"{name}_by_review", entity)
                bar.update(len(rows))


def whole_entities(key: Ints, size: int = CHUNK) -> Iterator[Ints]:
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
    values: npt.NDArray[np.int32]
    known: npt.NDArray[np.bool_]
    key: Ints  # codes into `ids`
    ids: pd.Index
    history: History

    def over_time(self, name: str) -> pa.Table:
        instants = self.members["event_timestamp"].to_numpy("datetime64[us]").view(np.int64)
        running = visibility.running_rows(self.key, instants)
        newest = running.order[running.stop - 1]
        sums = visibility.sums_over_time(self.values, running)
        counts = visibility.sums_over_time(self._ones, running)
        return _table(name, self.ids[self.key[newest]], instants[newest], sums, counts)

    def of_train(self, name: str) -> pa.Table:
        codes, group = np.unique(self.key[self._train], return_inverse=True)
        sums = visibility.sums_by(group, self.values[self._train], len(codes))
        counts = visibility.sums_by(group, self._ones[self._train], len(codes))
        return _table(name, self.ids[codes], self._as_of(len(codes)), sums, counts)

    def left_out(self, name: str, entity: Entity) -> pa.Table:
        other: Entity = "business" if entity == "user" else "user"
        part_of = self.members[key_of(other) if self.history.leave_out == "pair" else "fold"]
        part, _ = pd.factorize(pd.MultiIndex.from_arrays([self.key, part_of]))
        key, _ = pd.factorize(self.key)
        sums = visibility.sums_left_out(key, part, self._train, self.values)
        counts = visibility.sums_left_out(key, part, self._train, self._ones)
        return _table(name, self.members["review_id"], self._as_of(len(self.members)), sums, counts)

    @property
    def _train(self) -> npt.NDArray[np.bool_]:
        return (self.members["split"] == "train").to_numpy()

    @property
    def _ones(self) -> npt.NDArray[np.int32]:
        return self.known[:, None].astype(np.int32)

    def _as_of(self, rows: int) -> Ints:
        return np.full(rows, int(pd.Timestamp(self.history.as_of).timestamp() * 1_000_000))


def _table(name: str, ids: pd.Index | pd.Series, instants: Ints, sums: Ints, counts: Ints) -> pa.Table:
    schema = FEATURE_TABLES[name]
    column = vector_column(visibility.mean_of(sums, counts[:, 0]), counts[:, 0] > 0)
    columns = [pa.array(ids, pa.string()), pa.array(instants, schema.field(1).type), column]
    return pa.Table.from_arrays(columns, schema=schema)
