"""Rows of the online store as it holds them: protobuf bytes and the instant of the row, unparsed.

`get_online_features` builds a Python object of every number that it gives back: two thirds of a request's time.
What Feast wrote is read here as bytes, so a row that has not changed is known by comparing bytes and parsed never.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pipelines.core.errors import UserError

if TYPE_CHECKING:
    from feast import FeatureStore

Stamp = bytes | int | datetime


class Unreachable(UserError):
    """The online store cannot be read: one line says which, and what to do."""


class Unlisted(UserError):
    """The online store answers for ids, and cannot say which there are."""


class RawRow(NamedTuple):
    """One entity's row in one view. Two rows are equal where the store holds the same bytes."""

    stamp: Stamp  # the row's instant as the store writes it
    values: tuple[bytes | None, ...]  # a `feast.types.Value` each, in the order asked for; None: the store has none
    read_stamp: Callable[[Stamp], datetime]

    @property
    def instant(self) -> datetime:
        """UTC. SQLite's are in whole seconds."""
        return self.read_stamp(self.stamp)


class RowReader(Protocol):
    """A store of Feast's, read. Every method may be called from several threads, and raises Unreachable."""

    def read(self, wanted: Mapping[str, Sequence[str]], ids: Sequence[str]) -> dict[str, list[RawRow | None]]:
        """View -> a row for each of `ids`, None where it has none. `wanted`: view -> features, all of one entity."""

    def version(self) -> object | None:
        """Equal to an earlier one only if nothing was written since. None: the store cannot tell."""

    def ids(self, view: str) -> Iterator[list[str]]:
        """Every entity that has a row, in blocks. Unlisted where the store cannot say."""

    def remove(self, view: str, ids: Sequence[str]) -> None:
        """Take away rows of one view: Feast's materialization never does. Unlisted where the store has no such way."""

    def newest(self, view: str) -> tuple[int, datetime | None]:
        """How many entities have a row, and the newest row's instant. Unlisted where the store cannot say."""


def open_reader(store: "FeatureStore", prompt: bool = False) -> RowReader:
    """Of the store's own format, where it is one that is known here; else through Feast's interface.

    `prompt`: somebody waits, so a store that does not answer is told of soon.
    """
    from feast.infra.online_stores.redis import RedisOnlineStore
    from feast.infra.online_stores.sqlite import SqliteOnlineStore

    online = store.provider.online_store
    if isinstance(online, SqliteOnlineStore):
        from serving.sqlite_rows import SqliteRows

        return SqliteRows(store)
    if isinstance(online, RedisOnlineStore):
        from serving.redis_rows import RedisRows

        return RedisRows(store, online, prompt)
    from serving.feast_rows import FeastRows

    return FeastRows(store, online)
