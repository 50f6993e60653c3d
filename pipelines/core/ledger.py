"""The ledger of language models.

Every answer that came back, what was asked, by whom it was answered and what it cost. JSON text in SQLite.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.core.errors import UserError

LOOKUP = 500  # keys a SELECT; SQLite's limit on variables is higher everywhere
RECENT = 1000  # entries by which a model's tokens are judged
LOOKED_AT = 20 * RECENT  # to find them
USABLE = "ok"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
  key TEXT NOT NULL, status TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, prompt TEXT NOT NULL, request
  TEXT NOT NULL, response TEXT NOT NULL,
  text TEXT NOT NULL, input_tokens INTEGER, output_tokens INTEGER, dollars REAL NOT NULL, time TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS answers_by_key ON answers (key);
CREATE UNIQUE INDEX IF NOT EXISTS one_usable_answer ON answers (key) WHERE status = 'ok';
CREATE TABLE IF NOT EXISTS batches (file TEXT PRIMARY KEY, batch TEXT, endpoint TEXT NOT NULL, keys TEXT NOT NULL,
time TEXT NOT NULL);
"""


def ledger_file(cache: Path) -> Path:
    """Where it lies in the cache folder."""
    return cache / "llm" / "ledger.sqlite"


@dataclass(frozen=True)
class Entry:
    """One answer (or failure) as it came. `status`: ok, or why it is of no use."""

    key: str
    status: str
    provider: str
    model: str
    prompt: str  # its label, name/version
    request: Mapping[str, Any]  # the provider's identity of the question; holds no secret
    response: Any  # JSON as it came; null where nothing came
    text: str  # the raw answer, before any check
    input_tokens: int | None = None  # null: not reported
    output_tokens: int | None = None
    dollars: float = 0.0
    time: str = ""  # ISO 8601, UTC; set when it is kept


@dataclass(frozen=True)
class Usable:
    """Of a usable entry what answers a question again: thousands are held at once, and requests are long."""

    key: str
    text: str
    model: str


@dataclass(frozen=True)
class Batch:
    """A batch of requests at an endpoint. `batch` is null between the upload of its file and its creation."""

    file: str
    batch: str | None
    endpoint: str
    keys: tuple[str, ...]


_COLUMNS = [field.name for field in fields(Entry)]
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM answers"  # noqa: S608 (our own names)
_INSERT = f"INSERT INTO answers VALUES ({', '.join('?' * len(_COLUMNS))}) ON CONFLICT DO NOTHING"  # noqa: S608


class Ledger:
    """One SQLite file, safe for several processes at once. After a kill at any instant an entry is there or it is not.

    Usable entries are unique by key, the first one stays; unusable ones pile up beside them as a record. UserError:
    the file or its disk refuse.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{path.parent}: cannot be made ({error.strerror}); set `cache.dir` or MMREC_CACHE"
            ) from None
        self._lock = threading.Lock()
        with self._refusals_told():
            # one connection for good: closing the last one empties the write-ahead log, a sync or two that each answer
            # would pay
            self._connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")  # an answer is paid for: it survives a power cut too
        with self._connected() as connection:
            for statement in _SCHEMA.split(";\n"):
                connection.execute(statement)

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """The connection, within one transaction."""
        with self._lock, self._refusals_told(), self._connection:
            yield self._connection

    @contextmanager
    def _refusals_told(self) -> Iterator[None]:
        """What SQLite says against us becomes one line for the user."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{self.path.parent}: the ledger cannot be used ({error}); make room there or set `cache.dir` or "
                "MMREC_CACHE, and run again: what is in it is kept"
            ) from None

    def get(self, keys: Sequence[str]) -> dict[str, Usable]:
        """The usable answers of those `keys` that have one. `entry` has the whole record."""
        found = {}
        with self._connected() as connection:
            for start in range(0, len(keys), LOOKUP):
                some = keys[start : start + LOOKUP]
                marks = ",".join("?" * len(some))  # only question marks: the keys are bound
                query = f"SELECT key, text, model FROM answers WHERE status = 'ok' AND key IN ({marks})"  # noqa: S608
                for row in connection.execute(query, some):
                    found[row[0]] = Usable(*row)
        return found

    def put(self, entry: Entry) -> Entry:
        """Keep an entry at once. Returns the one that stands: a key that has a usable one keeps its first."""
        return self.put_all([entry])[0]

    def put_all(self, entries: Sequence[Entry], refused: Mapping[str, tuple[Usable, str]] | None = None) -> list[Entry]:
        """Keep entries in one transaction: all or none. Returns those that stand, as `put` does.

        `refused`: by key a usable answer that today's check refuses, and why. Where a usable entry comes for such a
        key, that answer becomes a mere record first; else it stays what it is.
        """
        with self._connected() as connection:
            return [self._put(connection, entry, (refused or {}).get(entry.key)) for entry in entries]

    @staticmethod
    def _put(connection: sqlite3.Connection, entry: Entry, refused: tuple[Usable, str] | None) -> Entry:
        kept = replace(entry, time=datetime.now(UTC).isoformat(timespec="microseconds"))
        if refused is not None and entry.status == USABLE:
            old, reason = refused
            connection.execute(
                "UPDATE answers SET status = ? WHERE status = 'ok' AND key = ? AND text = ?",
                (reason, old.key, old.text),  # by its text: another process may have replaced it by now
            )
        row = (
            *(kept.key, kept.status, kept.provider, kept.model, kept.prompt),
            *(_json(kept.request), _json(kept.response), kept.text),
            *(kept.input_tokens, kept.output_tokens, kept.dollars, kept.time),
        )
        if connection.execute(_INSERT, row).rowcount == 1 or entry.status != USABLE:
            return kept
        return _entry(connection.execute(f"{_SELECT} WHERE status = 'ok' AND key = ?", (entry.key,)).fetchone())

    def entry(self, key: str) -> Entry | None:
        """The whole record behind a key: its usable answer, else the newest of what else came back, else None."""
        with self._connected() as connection:
            row = connection.execute(
                f"{_SELECT} WHERE key = ? ORDER BY status = 'ok' DESC, rowid DESC LIMIT 1", (key,)
            ).fetchone()
        return None if row is None else _entry(row)

    def tokens_a_byte(self, provider: str, bytes_of: Callable[[Mapping[str, Any]], int]) -> float | None:
        """Input tokens a byte of request, as they were reported of late; None: they were not.

        `bytes_of` a request (an identity); 0: it does not count.
        """
        query = "SELECT input_tokens, request FROM answers WHERE provider = ? AND input_tokens > 0"
        tokens = size = counted = 0
        with self._connected() as connection:
            for reported, request in connection.execute(f"{query} ORDER BY rowid DESC LIMIT ?", (provider, LOOKED_AT)):
                if its_bytes := bytes_of(json.loads(request)):
                    tokens, size, counted = tokens + reported, size + its_bytes, counted + 1
                if counted == RECENT:
                    break
        return tokens / size if size else None

    def batches(self, endpoint: str) -> list[Batch]:
        """The batches at an endpoint from which answers may still be to come, oldest first."""
        with self._connected() as connection:
            rows = connection.execute(
                "SELECT file, batch, endpoint, keys FROM batches WHERE endpoint = ? ORDER BY time, file", (endpoint,)
            ).fetchall()
        return [Batch(file, batch, endpoint, tuple(json.loads(keys))) for file, batch, endpoint, keys in rows]

    def remember_batch(self, batch: Batch) -> None:
        """Keep a batch, or what is new about it."""
        time = datetime.now(UTC).isoformat(timespec="microseconds")
        with self._connected() as connection:
            connection.execute(
                "INSERT INTO batches VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (file) DO UPDATE SET batch = excluded.batch, keys = excluded.keys",
                (batch.file, batch.batch, batch.endpoint, json.dumps(batch.keys), time),
            )

    def forget_batch(self, batch: Batch) -> None:
        with self._connected() as connection:
            connection.execute("DELETE FROM batches WHERE file = ?", (batch.file,))


def _json(value: Any) -> str:
    return json.dumps(
        value, allow_nan=False, separators=(",", ":")
    )  # ASCII: lone surrogates of a wild answer are kept escaped


def _entry(row: Sequence[Any]) -> Entry:
    values = dict(zip(_COLUMNS, row, strict=True))
    return Entry(**{**values, "request": json.loads(values["request"]), "response": json.loads(values["response"])})
