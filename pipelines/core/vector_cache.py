"""Vectors kept by content: what was computed once is never computed again, also by a stage that was interrupted."""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.core.errors import UserError

Vectors = npt.NDArray[np.float32]
LOOKUP = 500  # keys a SELECT; SQLite's limit on variables is higher everywhere


class VectorCache:
    """One SQLite file per model; keys are SHA-256 of content, values little-endian float32.

    Safe for several processes at once (WAL), and after a kill at any instant: a row is there or it is not.
    """

    def __init__(self, folder: Path, fingerprint: str):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be made ({error.strerror}); set `cache.dir` or MMREC_CACHE") from None
        self.path = folder / f"{fingerprint}.sqlite"
        with closing(self._connect()) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL)")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=60)
        connection.execute("PRAGMA journal_mode = WAL")
        return connection

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        """The vectors of those `keys` that are known."""
        found = {}
        with closing(self._connect()) as connection:
            for some in _batches(keys, LOOKUP):
                marks = ",".join("?" * len(some))  # only question marks: the keys are bound
                query = f"SELECT key, vector FROM vectors WHERE key IN ({marks})"  # noqa: S608
                for key, vector in connection.execute(query, some):
                    found[key] = np.frombuffer(vector, dtype="<f4")
        return found

    def put(self, vectors: Iterable[tuple[bytes, Vectors]]) -> None:
        """Keep vectors, all or none. A key that is known keeps its first vector."""
        rows = ((key, vector.astype("<f4").tobytes()) for key, vector in vectors)
        with closing(self._connect()) as connection, connection:
            connection.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)


def key_of_text(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _batches(items: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
