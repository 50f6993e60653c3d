"""Feast's SQLite online store, read as it lies: a table a view, a row a feature of an entity."""

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from feast.infra.online_stores.helpers import compute_table_id

from serving.entity_keys import EntityKeys
from serving.rows import RawRow, Stamp, Unreachable

if TYPE_CHECKING:
    from feast import FeatureStore

VARIABLES = 5000  # of a statement; SQLite's own limit is 32,766
BLOCK = 10_000
PATIENCE_S = 2.0  # for a lock that another process holds


class SqliteRows:
    """Reads through one connection of its own, in WAL mode, where a writer never locks a reader out."""

    def __init__(self, store: "FeatureStore") -> None:
        config = store.config
        self._path = store.repo_path / config.online_store.path  # an absolute path stays what it is
        versioned = config.registry.enable_online_feature_view_versioning
        self._tables = {
            view.name: compute_table_id(store.project, view, versioned) for view in store.list_feature_views()
        }
        self._keys = EntityKeys(store)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._opened = 0

    def version(self) -> object:
        """SQLite's own count of what other connections have committed to this file, and which file it is."""
        with self._lock, self._readable():
            return self._opened, self._ask("PRAGMA data_version", ())[0][0]

    def read(self, wanted: Mapping[str, Sequence[str]], ids: Sequence[str]) -> dict[str, list[RawRow | None]]:
        with self._lock, self._readable():
            return self._rows(wanted, ids)

    def _rows(self, wanted: Mapping[str, Sequence[str]], ids: Sequence[str]) -> dict[str, list[RawRow | None]]:
        """By one statement with a row an entity: with a row a feature, two thirds of the time went into objects."""
        join_key = self._keys.join_key(next(iter(wanted)))
        picked: list[str] = []
        names: list[str] = []
        for view, features in wanted.items():
            of_it = f"FROM {quoted(self._tables[view])} WHERE entity_key = k"
            picked.append(f"(SELECT event_ts {of_it} LIMIT 1)")
            picked += [f"(SELECT value {of_it} AND feature_name = ?)"] * len(features)
            names += features
        found: list[tuple] = []
        for start in range(0, len(ids), VARIABLES):
            keys = [self._keys.key(join_key, entity_id) for entity_id in ids[start : start + VARIABLES]]
            entities = ",".join(["(?)"] * len(keys))
            query = f"WITH entities(k) AS (VALUES {entities}) SELECT {','.join(picked)} FROM entities"  # noqa: S608
            found += self._ask(query, [*keys, *names])
        rows: dict[str, list[RawRow | None]] = {}
        start = 0
        for view, features in wanted.items():
            stop = start + 1 + len(features)
            rows[view] = [
                None if row[start] is None else RawRow(row[start], row[start + 1 : stop], instant_of) for row in found
            ]
            start = stop
        return rows

    def ids(self, view: str) -> Iterator[list[str]]:
        with self._apart() as connection:
            rows = connection.execute(f"SELECT DISTINCT entity_key FROM {quoted(self._tables[view])}")  # noqa: S608
            while block := rows.fetchmany(BLOCK):
                yield [self._keys.entity_id(key) for (key,) in block]

    def remove(self, view: str, ids: Sequence[str]) -> None:
        """Take away the rows of `ids` in one view, all at once."""
        join_key = self._keys.join_key(view)
        with self._apart() as connection, connection:
            connection.executemany(
                f"DELETE FROM {quoted(self._tables[view])} WHERE entity_key = ?",  # noqa: S608
                [(self._keys.key(join_key, entity_id),) for entity_id in ids],
            )

    def newest(self, view: str) -> tuple[int, datetime | None]:
        with self._apart() as connection:
            table = quoted(self._tables[view])
            query = f"SELECT count(DISTINCT entity_key), max(event_ts) FROM {table}"  # noqa: S608
            rows, stamp = connection.execute(query).fetchone()
        return rows, None if stamp is None else instant_of(stamp)

    def _ask(self, query: str, values: Sequence[object]) -> list[tuple]:
        assert self._connection is not None
        return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """The connection is one to the file that lies there now; whatever goes wrong in here is Unreachable."""
        try:
            status = self._path.stat()
            file = status.st_dev, status.st_ino
            if self._connection is None or file != self._file:
                self._close()
                self._connection = connect(self._path)
                self._file = file
                self._opened += 1
            yield
        except (OSError, sqlite3.Error) as error:
            self._close()
            raise self._unreachable(error) from None

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _apart(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own, for what takes long: no request waits for it."""
        try:
            with closing(connect(self._path)) as connection:
                yield connection
        except (OSError, sqlite3.Error) as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> Unreachable:
        if isinstance(error, FileNotFoundError):
            what, remedy = "no such file", "run `feast apply` and `feast materialize`, or `dvc repro`"
        elif "no such table" in str(error):
            what, remedy = str(error), "run `feast apply` and `feast materialize`, or `dvc repro`"
        else:
            what, remedy = str(error), "see that nothing else keeps it locked and that the disk can be read"
        return Unreachable(f"online store {self._path}: {what}; {remedy}")


def connect(path: Path) -> sqlite3.Connection:
    """To a file that is there. Leaves it in WAL mode, which stays with the file, if it may be written."""
    if not path.is_file():
        raise FileNotFoundError(path)
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=PATIENCE_S, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
    except sqlite3.OperationalError as error:
        # Somebody reads or writes in the old mode now, or we may not write: the next who opens it tries again.
        if "locked" not in str(error) and "readonly" not in str(error):
            connection.close()
            raise
    return connection


def instant_of(stamp: Stamp) -> datetime:
    """Feast takes an instant's UTC for local time, writes the seconds, and reads them the same way."""
    assert isinstance(stamp, int)
    return datetime.fromtimestamp(stamp).replace(tzinfo=UTC)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
