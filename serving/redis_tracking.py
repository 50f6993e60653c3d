"""Whether anything was written to Redis since: by the server's own messages (`CLIENT TRACKING`, Redis 6 and later)."""

import threading
import time
from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

WRITTEN = object()  # what the handler makes of a message
AGAIN_S = 1.0  # after a failure


class Tracking:
    """A connection that is told of every write to keys of some prefixes.

    Messages and replies come in one order: when a PING is answered, every write that was acknowledged before it was
    sent has been told of. So equal versions mean that nothing was written in between, whatever the network does.
    """

    def __init__(self, client: Redis, prefixes: Sequence[bytes]) -> None:
        pool = client.connection_pool
        # Asking by itself whether the server lives, or connecting anew, the client would read messages past us.
        own = {"protocol": 3, "health_check_interval": 0, "retry": Retry(NoBackoff(), 0)}
        self._connection: Any = pool.connection_class(**{**pool.connection_kwargs, **own})
        self._prefixes = prefixes
        self._lock = threading.Lock()
        self._told = False
        self._opened = self._writes = 0
        self._failed = -AGAIN_S

    def version(self) -> object | None:
        """None: this server tells nothing, or does not answer; whoever reads rows then will find out which."""
        with self._lock:
            if time.monotonic() - self._failed < AGAIN_S:
                return None
            try:
                if not self._told:
                    self._open()
                self._connection.send_command("PING")
                self._reply()
            except (RedisError, OSError):
                self._told = False
                self._failed = time.monotonic()
                self._connection.disconnect()
                return None
            return self._opened, self._writes

    def _open(self) -> None:
        self._connection.connect()
        self._connection._parser.set_invalidation_push_handler(self._written)
        named = [word for prefix in self._prefixes for word in (b"PREFIX", prefix)]
        self._connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", *named)
        self._reply()
        self._told = True
        self._opened += 1

    def _reply(self) -> None:
        """Past all messages to the next reply. One by one: the client itself goes one call deeper a message."""
        while self._connection.read_response(push_request=True) is WRITTEN:
            pass

    def _written(self, _: object) -> object:
        self._writes += 1
        return WRITTEN
