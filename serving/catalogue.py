"""Names, categories and prices of businesses, and who wrote how many reviews: from the pipeline's tables.

The ranker needs none of it. A table that is not there means no names; one that changes is read again.
"""

import logging
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import pyarrow.compute as pc

from pipelines.core.errors import UserError
from pipelines.core.tables import BUSINESSES, REVIEWS, read_table

logger = logging.getLogger(__name__)

Made = TypeVar("Made")
LAST = chr(0x10FFFF)  # after every character that an id begins with


@dataclass(frozen=True)
class Business:
    name: str | None
    categories: tuple[str, ...]
    price: float | None  # in the source's own unit

    def is_of(self, category: str) -> bool:
        """In any case."""
        return any(own.casefold() == category.casefold() for own in self.categories)


NOTHING_KNOWN = Business(None, (), None)


@dataclass(frozen=True)
class Businesses:
    of: Mapping[str, Business] = field(default_factory=dict)
    ids: tuple[str, ...] = ()  # sorted
    categories: tuple[str, ...] = ()  # most businesses first
    prices: tuple[float, float] | None = None  # least, greatest


@dataclass(frozen=True)
class Users:
    """Sorted ids, and each one's count of reviews and place among those with the most."""

    ids: list[str] = field(default_factory=list)
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    places: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def beginning_with(self, prefix: str, limit: int) -> list[tuple[str, int]]:
        """(id, reviews) of at most `limit` users, most reviews first, of equals the smaller id."""
        start, end = bisect_left(self.ids, prefix), bisect_left(self.ids, prefix + LAST)
        places = self.places[start:end]
        first = np.argpartition(places, limit)[:limit] if len(places) > limit else np.arange(len(places))
        return [(self.ids[start + i], int(self.counts[start + i])) for i in first[np.argsort(places[first])]]


def read_businesses(path: Path) -> Businesses:
    rows = read_table(path, BUSINESSES).to_pylist()
    of = {row["business_id"]: Business(row["name"], tuple(row["categories"]), row["price"]) for row in rows}
    counts = Counter(category for business in of.values() for category in dict.fromkeys(business.categories))
    categories = tuple(sorted(counts, key=lambda name: (-counts[name], name)))
    prices = [business.price for business in of.values() if business.price is not None]
    return Businesses(of, tuple(sorted(of)), categories, (min(prices), max(prices)) if prices else None)


def read_users(path: Path) -> Users:
    counted = pc.value_counts(read_table(path, REVIEWS, ["user_id"])["user_id"])
    ids, counts = counted.field("values").to_pylist(), counted.field("counts").to_numpy()
    # Python's order of strings, which bisect needs
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)
    counts = counts[order]
    places = np.empty(len(ids), np.int64)
    places[np.argsort(-counts, kind="stable")] = np.arange(len(ids))
    return Users([ids[i] for i in order], counts, places)


class TableFile(Generic[Made]):
    """What `read` makes of the file at `path`: made again when the file changes, `nothing` while it is not there."""

    def __init__(self, path: Path, read: Callable[[Path], Made], nothing: Made) -> None:
        self._path, self._read, self._nothing = path, read, nothing
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._made = nothing

    def now(self) -> Made:
        """A file that is no such table leaves what was made before, and a line in the log."""
        with self._lock:
            seen = self._stamp()
            if seen != self._seen:
                self._seen = seen
                try:
                    self._made = self._nothing if seen is None else self._read(self._path)
                except UserError as error:
                    logger.warning("%s", error)
            return self._made

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


class Catalogue:
    """Both tables of a data folder. Thread-safe."""

    def __init__(self, data: Path) -> None:
        tables = data / "tables"
        self._businesses = TableFile(tables / "businesses.parquet", read_businesses, Businesses())
        self._users = TableFile(tables / "reviews.parquet", read_users, Users())

    def businesses(self) -> Businesses:
        return self._businesses.now()

    def users(self) -> Users:
        return self._users.now()
