"""Feast's Redis online store, read as it lies: a hash an entity, with the features of all of its views."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from feast.infra.online_stores.helpers import _mmh3, _redis_key_prefix, compute_versioned_name
from google.protobuf.timestamp_pb2 import Timestamp
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from pipelines.core.questions import printable_line
from serving.entity_keys import EntityKeys
from serving.redis_tracking import AGAIN_S, Tracking
from serving.rows import RawRow, Stamp, Unreachable

if TYPE_CHECKING:
    from feast import FeatureStore
    from feast.infra.online_stores.redis import RedisOnlineStore

BLOCK = 1000
PATIENCE_S = 2.0  # for one answer, unless `connection_string` says socket_timeout=…


class RedisRows:
    """Reads through Feast's own client: one command an entity, for all of its views at once.

    `prompt`: say at once that the server is gone, for somebody waits. By itself the client waits for ever, or asks
    again and again with pauses between: half a minute for one refusal.
    """

    def __init__(self, store: "FeatureStore", online: "RedisOnlineStore", prompt: bool) -> None:
        self._failure = (-AGAIN_S, "")
        nodes, _ = online._parse_connection_string(store.config.online_store.connection_string)
        if not nodes or not all(node.get("port", "").isdecimal() for node in nodes):
            # What it says instead may hold a password.
            raise Unreachable(
                "online store redis: `online_store.connection_string` in feature_store.yaml begins with no host:port;"
                " write it there, or set MMREC_REDIS, which it names"
            )
        self._client: Any = online._get_client(store.config.online_store)
        if prompt:
            self._client.set_retry(Retry(NoBackoff(), 1))  # a connection may have been closed for idling
        if prompt and isinstance(self._client, Redis):
            waits = self._client.connection_pool.connection_kwargs
            for name in ("socket_timeout", "socket_connect_timeout"):
                waits[name] = waits.get(name) or PATIENCE_S
        self._project = store.project.encode()
        self._keys = EntityKeys(store)
        versioned = store.config.registry.enable_online_feature_view_versioning
        prefixes = {_redis_key_prefix(view.join_keys) for view in store.list_feature_views() if view.online}
        # A cluster has a connection a node, and would have to be told of by each.
        self._tracking = Tracking(self._client, sorted(prefixes)) if isinstance(self._client, Redis) else None
        self._features = {view.name: [field.name for field in view.features] for view in store.list_feature_views()}
        self._names = {view.name: compute_versioned_name(view, versioned) for view in store.list_feature_views()}

    def version(self) -> object | None:
        return self._tracking.version() if self._tracking else None

    def read(self, wanted: Mapping[str, Sequence[str]], ids: Sequence[str]) -> dict[str, list[RawRow | None]]:
        fields: list[bytes] = []
        for view, features in wanted.items():
            fields += [self._stamp_field(view), *(self._field(view, feature) for feature in features)]
        join_key = self._keys.join_key(next(iter(wanted)))
        with self._reachable(), self._client.pipeline(transaction=False) as pipe:
            for entity_id in ids:
                pipe.hmget(self._keys.key(join_key, entity_id) + self._project, fields)
            replies = pipe.execute()
        rows: dict[str, list[RawRow | None]] = {}
        start = 0
        for view, features in wanted.items():
            stop = start + 1 + len(features)
            rows[view] = [
                None if reply[start] is None else RawRow(reply[start], tuple(reply[start + 1 : stop]), instant_of)
                for reply in replies
            ]
            start = stop
        return rows

    def ids(self, view: str) -> Iterator[list[str]]:
        for keys, _ in self._scan(view):
            yield [self._keys.entity_id(key[: -len(self._project)]) for key in keys]

    def remove(self, view: str, ids: Sequence[str]) -> None:
        """Take away the rows of `ids` in one view."""
        join_key = self._keys.join_key(view)
        fields = [self._stamp_field(view), *(self._field(view, feature) for feature in self._features[view])]
        with self._reachable(), self._client.pipeline(transaction=False) as pipe:
            for entity_id in ids:
                pipe.hdel(self._keys.key(join_key, entity_id) + self._project, *fields)
            pipe.execute()

    def newest(self, view: str) -> tuple[int, datetime | None]:
        rows, newest = 0, None
        for keys, stamps in self._scan(view):
            rows += len(keys)
            newest = max(filter(None, [newest, *map(instant_of, stamps)]), default=None)
        return rows, newest

    def _scan(self, view: str) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Keys that have a row in `view`, and its stamp, in blocks. A key that moves meanwhile may come twice."""
        pattern = escaped(_redis_key_prefix([self._keys.join_key(view)])) + b"*" + escaped(self._project)
        field = self._stamp_field(view)
        seen: set[bytes] = set()
        with self._reachable():
            block: list[bytes] = []
            for key in self._client.scan_iter(pattern, count=BLOCK):
                if key not in seen:
                    seen.add(key)
                    block.append(key)
                if len(block) == BLOCK:
                    yield self._stamped(block, field)
                    block = []
            if block:
                yield self._stamped(block, field)

    def _stamped(self, keys: Sequence[bytes], field: bytes) -> tuple[list[bytes], list[bytes]]:
        with self._client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hget(key, field)
            stamps = pipe.execute()
        having = [(key, stamp) for key, stamp in zip(keys, stamps, strict=True) if stamp is not None]
        return [key for key, _ in having], [stamp for _, stamp in having]

    def _field(self, view: str, feature: str) -> bytes:
        return _mmh3(f"{self._names[view]}:{feature}")

    def _stamp_field(self, view: str) -> bytes:
        return f"_ts:{self._names[view]}".encode()

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        """Who comes within a second of a failure is told the same, or many would wait for the same answer in turn."""
        failed, said = self._failure
        if time.monotonic() - failed < AGAIN_S:
            raise Unreachable(said)
        try:
            yield
        except (RedisError, OSError) as error:
            # A pipeline's error repeats the command, and who was asked for.
            what = printable_line(str(error).rpartition("caused error: ")[2])
            said = (
                f"online store redis: {what}; see that the server of `online_store.connection_string` in"
                " feature_store.yaml runs and holds what Feast wrote"
            )
            self._failure = time.monotonic(), said
            raise Unreachable(said) from None


def instant_of(stamp: Stamp) -> datetime:
    assert isinstance(stamp, bytes)
    return Timestamp.FromString(stamp).ToDatetime(UTC)


def escaped(text: bytes) -> bytes:
    """Of a pattern's signs, for Redis to take as they are."""
    return b"".join(b"\\" + sign if (sign := bytes([byte])) in b"*?[]^\\" else sign for byte in text)
