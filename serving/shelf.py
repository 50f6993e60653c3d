"""Encoded rows of entities, each kept beside the bytes of the online store that it was made of."""

import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from serving.rows import RawRow
from serving.scoring import Part

Raw = tuple[RawRow | None, ...]
"""An entity's row in each view that the model reads of it; None: it has none."""
Encode = Callable[[Sequence[Raw]], Part]
"""Raw rows of N entities to N rows a name."""


class Shelf:
    """At most `most` entities, or as many as one request names: a full shelf is emptied.

    What is on it is never believed: it counts only where the store's bytes are those it was made of, or where the
    store's version says that nothing was written since they were compared. Many may take from it at once; one at a
    time, who holds `refreshing`, puts something on it, so what many miss after a write is read once.
    """

    def __init__(self, most: int) -> None:
        self.refreshing = threading.Lock()
        self._most = most
        self._lock = threading.Lock()  # held for as long as numbers are copied
        self._places: dict[str, int] = {}
        self._raw: list[tuple] = []
        self._versions: list[object | None] = []
        self._arrays: dict[str, np.ndarray] = {}

    def unsure(self, ids: Sequence[str], version: object | None) -> list[str]:
        """Those of `ids` that must be read: not here, or not compared at `version`."""
        if version is None:
            return list(ids)
        with self._lock:
            return [one for one in ids if not self._sure(one, version)]

    def put(self, ids: Sequence[str], rows: Sequence[Raw], version: object | None, encode: Encode) -> int:
        """Take what was read of `ids`. Encodes the rows that differ from what is here, and says how many did."""
        if len(self._places) + sum(one not in self._places for one in ids) > max(self._most, len(ids)):
            with self._lock:
                self._clear()
        bare = [bare_of(raw) for raw in rows]
        changed = [i for i, one in enumerate(ids) if (at := self._places.get(one)) is None or self._raw[at] != bare[i]]
        # also of nobody, where nothing was encoded yet: then it is known of which names there are how many rows, none
        part = encode([rows[i] for i in changed]) if changed or not self._arrays else {}
        with self._lock:
            places = self._room([ids[i] for i in changed])
            for name, values in part.items():
                self._column(name, values)[places] = values
            for i, place in zip(changed, places, strict=True):
                self._raw[place] = bare[i]
            for one in ids:
                self._versions[self._places[one]] = version
        return len(changed)

    def take(self, ids: Sequence[str], version: object | None = None) -> Part | None:
        """Rows of `ids`, copied; None where not all are here, or, with a `version`, not all were compared at it."""
        with self._lock:
            if not self._arrays or (version is not None and not all(self._sure(one, version) for one in ids)):
                return None
            try:
                places = np.fromiter(map(self._places.__getitem__, ids), np.int64, len(ids))
            except KeyError:
                return None
            return {name: column[places] for name, column in self._arrays.items()}

    def _sure(self, one: str, version: object) -> bool:
        at = self._places.get(one)
        return at is not None and self._versions[at] == version

    def _clear(self) -> None:
        self._places.clear()
        self._raw.clear()
        self._versions.clear()

    def _room(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Places of `ids`, made where there are none."""
        for one in ids:
            if self._places.setdefault(one, len(self._places)) == len(self._raw):
                self._raw.append(())
                self._versions.append(None)
        return np.fromiter(map(self._places.__getitem__, ids), np.int64, len(ids))

    def _column(self, name: str, values: np.ndarray) -> np.ndarray:
        """The array of `name`, with room for every place; it doubles as it fills."""
        column = self._arrays.get(name)
        wanted = len(self._places)
        if column is None or len(column) < wanted:
            grown = np.empty((max(wanted, 2 * (0 if column is None else len(column))), *values.shape[1:]), values.dtype)
            if column is not None:
                grown[: len(column)] = column
            self._arrays[name] = column = grown
        return column


def bare_of(raw: Raw) -> tuple:
    """An entity's stamps and bytes, and no other object: the garbage collector then has nothing to look through."""
    return tuple(None if row is None else (row.stamp, row.values) for row in raw)
